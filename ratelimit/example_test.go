package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

var examples atomic.Int64

// connect does what madcrow.Open does in a program, with the server of the
// tests and keys of its own.
func connect(ctx context.Context) *madcrow.Redis {
	cfg := config
	cfg.KeyPrefix = fmt.Sprintf("example%d:", examples.Add(1))
	cfg.Require = true
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return r
}

// Two requests a minute for each user. A denial is a decision, a failure is an
// error; the two never mix.
func Example() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)

	api, err := ratelimit.New(r, "api", ratelimit.Options{Rate: ratelimit.PerMinute(2), FailPolicy: madcrow.FailOpen})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		switch d, err := api.Allow(ctx, "user:7"); {
		case err != nil:
			log.Fatal(err)
		case d.Allowed:
			fmt.Println("go on,", d.Remaining, "left")
		default:
			fmt.Println("try again in", d.RetryAfter.Round(10*time.Second))
		}
	}
	// Output:
	// go on, 1 left
	// go on, 0 left
	// try again in 1m0s
}

func ExampleLimiter_Allow() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "search", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	d, err := l.Allow(ctx, "alice")
	fmt.Println(d.Allowed, d.Source, err)

	d, err = l.Allow(ctx, "alice")
	fmt.Println(d.Allowed, d.Source, err)

	// Known to be denied: Redis is not asked again.
	d, err = l.Allow(ctx, "alice")
	fmt.Println(d.Allowed, d.Source, err)

	d, err = l.Allow(ctx, "bob")
	fmt.Println(d.Allowed, d.Source, err)
	// Output:
	// true redis <nil>
	// false redis <nil>
	// false local <nil>
	// true redis <nil>
}

// A limit of megabytes: each request costs its size, and is admitted as a
// whole or not at all.
func ExampleLimiter_AllowN() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	upload, err := ratelimit.New(r, "upload", ratelimit.Options{Rate: ratelimit.PerDay(100), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	for _, megabytes := range []int64{70, 40, 30, 101} {
		d, err := upload.AllowN(ctx, "alice", megabytes)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(megabytes, d.Allowed, d.Remaining, d.RetryAfter == ratelimit.Never)
	}
	// Output:
	// 70 true 30 false
	// 40 false 30 false
	// 30 true 0 false
	// 101 false 0 true
}

// Peek shows a user what is left, and counts nothing.
func ExampleLimiter_Peek() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "mails", ratelimit.Options{Rate: ratelimit.PerDay(50), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	if _, err := l.AllowN(ctx, "alice", 8); err != nil {
		log.Fatal(err)
	}
	for range 2 { // looking twice makes no difference
		d, err := l.Peek(ctx, "alice")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d of %d left, all of them again in %v\n", d.Remaining, d.Limit, d.ResetAfter.Round(time.Minute))
	}
	// Output:
	// 42 of 50 left, all of them again in 24h0m0s
	// 42 of 50 left, all of them again in 24h0m0s
}

func ExampleLimiter_Reset() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "resets", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	for range 2 {
		d, err := l.Allow(ctx, "alice")
		fmt.Println(d.Allowed, err)
	}
	if err := l.Reset(ctx, "alice"); err != nil { // alice has asked support
		log.Fatal(err)
	}
	d, err := l.Allow(ctx, "alice")
	fmt.Println(d.Allowed, err)
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
}

// A block denies whatever is free, in every process. Reset ends it.
func ExampleLimiter_Block() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "scrapers", ratelimit.Options{Rate: ratelimit.PerSecond(100), FailPolicy: madcrow.FailOpen})
	if err != nil {
		log.Fatal(err)
	}

	if err := l.Block(ctx, "198.51.100.7", time.Hour); err != nil {
		log.Fatal(err)
	}
	d, err := l.Allow(ctx, "198.51.100.7")
	fmt.Println(d.Allowed, d.RetryAfter.Round(time.Minute), err)
	// Output:
	// false 1h0m0s <nil>
}

// Work in the background waits for its turn.
func ExampleLimiter_Wait() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "partner", ratelimit.Options{Rate: ratelimit.Per(200*time.Millisecond, 1), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	began := time.Now()
	for range 3 {
		if _, err := l.Wait(ctx, "partner.example"); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("at least 400 ms:", time.Since(began) >= 400*time.Millisecond)
	// Output:
	// at least 400 ms: true
}

// A deadline that is too early is reported at once, not when it has passed.
func ExampleLimiter_Wait_tooLate() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "reports", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for range 2 {
		d, err := l.Wait(ctx, "alice")
		fmt.Println(d.Allowed, errors.Is(err, ratelimit.ErrTooLate))
	}
	// Output:
	// true false
	// false true
}

// One limit that must hold, and one call site that would rather let people in
// while Redis is away.
func ExampleLimiter_OnFailure() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, madcrow.Config{Host: "127.0.0.1", Port: 1}) // no Redis there
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)
	l, err := ratelimit.New(r, "login", ratelimit.Options{Rate: ratelimit.PerMinute(10), FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	d, err := l.Allow(ctx, "alice")
	fmt.Println("closed:", d.Allowed, errors.Is(err, madcrow.ErrUnavailable))

	open := l.OnFailure(madcrow.FailOpen)
	d, err = open.Allow(ctx, "alice")
	fmt.Println("open:", d.Allowed, d.Degraded, err)

	local := l.OnFailure(madcrow.FailLocal(5)) // five processes share the 10
	for range 3 {
		d, err = local.Allow(ctx, "alice")
		fmt.Println("local:", d.Allowed, d.Limit, err)
	}
	fmt.Println(l.Health().Degraded)
	// Output:
	// closed: false true
	// open: true true <nil>
	// local: true 2 <nil>
	// local: true 2 <nil>
	// local: false 2 <nil>
	// true
}

// A batch takes what there is.
func ExampleTokenBucket_AllowAtMost() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	b, err := ratelimit.NewTokenBucket(r, "rows", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(60), Burst: 10, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	for range 3 {
		n, d, err := b.AllowAtMost(ctx, "import", 7)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("take", n, d.Allowed)
	}
	// Output:
	// take 7 true
	// take 3 true
	// take 0 false
}

// Reserve books a turn in the future; Cancel gives it back.
func ExampleTokenBucket_Reserve() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	b, err := ratelimit.NewTokenBucket(r, "calls", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(60), Burst: 1, FailPolicy: madcrow.FailClosed, MaxWait: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}

	var last *ratelimit.Reservation
	for range 3 {
		if last, err = b.Reserve(ctx, "partner.example", 1, 10*time.Minute); err != nil {
			log.Fatal(err)
		}
		fmt.Println(last.OK, "in", last.Wait.Round(10*time.Second))
	}
	if err := last.Cancel(ctx); err != nil {
		log.Fatal(err)
	}
	again, err := b.Reserve(ctx, "partner.example", 1, 10*time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.OK, "in", again.Wait.Round(10*time.Second))
	// Output:
	// true in 0s
	// true in 1m0s
	// true in 2m0s
	// true in 2m0s
}

// A request is paid for before its price is known, and corrected after.
func ExampleTokenBucket_Penalize() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	b, err := ratelimit.NewTokenBucket(r, "query-seconds", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(60), Burst: 20, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	d, err := b.Allow(ctx, "alice")
	fmt.Println(d.Allowed, d.Remaining, err)
	d, err = b.Penalize(ctx, "alice", 12) // it took 13 seconds
	fmt.Println(d.Remaining, err)
	// Output:
	// true 19 <nil>
	// 7 <nil>
}

// What turns out not to count is given back.
func ExampleTokenBucket_Reward() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	b, err := ratelimit.NewTokenBucket(r, "reports", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(60), Burst: 20, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	d, err := b.AllowN(ctx, "alice", 5)
	fmt.Println(d.Allowed, d.Remaining, err)
	d, err = b.Reward(ctx, "alice", 5) // our own server failed
	fmt.Println(d.Remaining, err)
	// Output:
	// true 15 <nil>
	// 20 <nil>
}

// Several limits in one round trip: all admit and count, or none does.
func ExampleJoin() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	minute, err := ratelimit.New(r, "minute", ratelimit.Options{Rate: ratelimit.PerMinute(2), FailPolicy: madcrow.FailOpen})
	if err != nil {
		log.Fatal(err)
	}
	day, err := ratelimit.New(r, "day", ratelimit.Options{Rate: ratelimit.PerDay(1000), FailPolicy: madcrow.FailOpen, Algorithm: ratelimit.SlidingWindow(24)})
	if err != nil {
		log.Fatal(err)
	}
	both, err := ratelimit.Join(minute, day)
	if err != nil {
		log.Fatal(err)
	}

	for range 3 {
		d, err := both.Allow(ctx, "alice")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Allowed, "decided by", d.Limiter, d.Violated)
	}
	d, err := day.Peek(ctx, "alice")
	fmt.Println("left of the day:", d.Remaining, err)
	// Output:
	// true decided by minute []
	// true decided by minute []
	// false decided by minute [minute]
	// left of the day: 998 <nil>
}

// A request and its bytes are two limits with a cost of their own.
func ExampleGroup_AllowN() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	requests, err := ratelimit.New(r, "requests", ratelimit.Options{Rate: ratelimit.PerMinute(100), FailPolicy: madcrow.FailOpen})
	if err != nil {
		log.Fatal(err)
	}
	kilobytes, err := ratelimit.NewTokenBucket(r, "kilobytes", ratelimit.TokenBucketOptions{Rate: ratelimit.PerMinute(600), Burst: 1000, FailPolicy: madcrow.FailOpen})
	if err != nil {
		log.Fatal(err)
	}
	both, err := ratelimit.Join(requests, kilobytes.Limiter)
	if err != nil {
		log.Fatal(err)
	}

	for _, size := range []int64{800, 400} {
		d, err := both.AllowN(ctx, "alice", 1, size)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(size, d.Allowed, d.Violated, d.RetryAfter.Round(10*time.Second))
	}
	// Output:
	// 800 true [] 0s
	// 400 false [kilobytes] 20s
}

// The algorithm is an option; the verbs stay the same.
func ExampleAlgorithm() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)

	for _, a := range []ratelimit.Algorithm{
		ratelimit.SlidingLog(), ratelimit.SortedSetLog(), ratelimit.SlidingWindow(10), ratelimit.GCRA(5),
	} {
		l, err := ratelimit.New(r, a.String(), ratelimit.Options{Rate: ratelimit.PerHour(5), FailPolicy: madcrow.FailClosed, Algorithm: a})
		if err != nil {
			log.Fatal(err)
		}
		d, err := l.AllowN(ctx, "alice", 4)
		fmt.Println(a, d.Allowed, d.Remaining, err)
	}
	// Output:
	// sliding-log true 1 <nil>
	// sorted-set-log true 1 <nil>
	// sliding-window true 1 <nil>
	// gcra true 1 <nil>
}
