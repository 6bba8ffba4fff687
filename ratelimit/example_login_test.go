package ratelimit_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// A login with three attempts. The password is not looked at when there are too
// many, and a success forgets the failures.
func ExampleLogin_Attempt() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	logins, err := ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{MaxAttempts: 3, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err) // every problem at once, each with its fix
	}

	login := func(user, password string) string {
		id := ratelimit.LoginKey(user, netip.MustParseAddr("192.0.2.1"))
		switch d, err := logins.Attempt(ctx, id); {
		case err != nil:
			return "503, not decided"
		case !d.Allowed:
			return fmt.Sprint("429, again in ", d.RetryAfter.Round(time.Minute))
		case password != "correct horse":
			return fmt.Sprintf("401, %d left", d.Remaining)
		}
		if err := logins.Reset(ctx, id); err != nil {
			log.Print(err) // the user is in all the same
		}
		return "200"
	}
	fmt.Println(login("ada", "12345"))
	fmt.Println(login("ada", "correct horse"))
	for range 4 {
		fmt.Println(login("Ada", "12345"))
	}
	fmt.Println(login("ada", "correct horse"))
	// Output:
	// 401, 2 left
	// 200
	// 401, 2 left
	// 401, 1 left
	// 401, 0 left
	// 429, again in 15m0s
	// 429, again in 15m0s
}

// The verbs of FastAPI Madcrow, on the same data.
func ExampleLogin_IsRateLimited() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	logins, err := ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{MaxAttempts: 2, Window: time.Hour, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	for range 2 {
		fmt.Println(logins.IsRateLimited(ctx, "grace"))
		if _, err := logins.Increment(ctx, "grace"); err != nil { // the password was wrong
			log.Fatal(err)
		}
		fmt.Println(logins.RemainingAttempts(ctx, "grace"))
	}
	fmt.Println(logins.IsRateLimited(ctx, "grace"))
	wait, err := logins.TimeUntilReset(ctx, "grace")
	fmt.Println(wait.Round(time.Minute), err)

	fmt.Println(logins.Reset(ctx, "grace")) // the password was right, or an operator helps
	fmt.Println(logins.IsRateLimited(ctx, "grace"))
	// Output:
	// false <nil>
	// 1 <nil>
	// false <nil>
	// 0 <nil>
	// true <nil>
	// 1h0m0s <nil>
	// <nil>
	// false <nil>
}

// Each further block is longer.
func ExampleNewLogin_blocks() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	logins, err := ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{MaxAttempts: 1, Blocks: []time.Duration{50 * time.Millisecond, time.Hour, 24 * time.Hour}, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	for range 2 {
		d, err := logins.Attempt(ctx, "mallory")
		fmt.Println(d.Allowed, err)
		time.Sleep(80 * time.Millisecond)
	}
	d, err := logins.Attempt(ctx, "mallory")
	fmt.Println(d.Allowed, d.RetryAfter.Round(time.Minute), err)
	// Output:
	// true <nil>
	// true <nil>
	// false 1h0m0s <nil>
}

func ExampleLoginOptionsFromEnv() {
	env := map[string]string{
		"RATE_LIMIT_LOGIN_MAX_ATTEMPTS": "five",
		"RATE_LIMIT_LOGIN_TIME_WINDOW":  "15m",
	}
	_, err := ratelimit.LoginOptionsFromEnv(madcrow.Env{Lookup: func(name string) (string, bool) {
		text, ok := env[name]
		return text, ok
	}})
	fmt.Println(err)
	// Output:
	// RATE_LIMIT_LOGIN_MAX_ATTEMPTS="five": it is not a whole number (fix: set a whole number from 0 to 1000000)
}

func ExampleLoginKey() {
	fmt.Println(ratelimit.LoginKey("Ada", netip.MustParseAddr("192.0.2.1")))
	fmt.Println(ratelimit.LoginKey("ada", netip.MustParseAddr("2001:db8::17")))
	// Output:
	// 192.0.2.1|ada
	// 2001:db8::/64|ada
}
