package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// exampleServer is the Redis of the examples; a program calls ConfigFromEnv.
var exampleServer madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { exampleServer = s.Config() })
}

func Example() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	err = r.Do(ctx, r.B().Set().Key("greeting").Value("hello").Ex(time.Minute).Build()).Err()
	fmt.Println("stored:", err == nil)

	text, found, err := r.Do(ctx, r.B().Get().Key("greeting").Build()).Text()
	fmt.Println(text, found, err)

	_, found, err = r.Do(ctx, r.B().Get().Key("nothing").Build()).Text()
	fmt.Println("found:", found, err)
	// Output:
	// stored: true
	// hello true <nil>
	// found: false <nil>
}

// An option says how one call travels: here on a connection of its own, for as long
// as it may wait in Redis.
func ExampleRedis_Do() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	waited, n := 100*time.Millisecond, 3
	fmt.Println(r.Do(ctx, r.B().Rpush().Key("jobs").Element("one", "two").Build()).Int())
	for range n {
		job, err := r.Do(ctx, r.B().Blpop().Key("jobs").Timeout(waited.Seconds()).Build(), madcrow.Blocking(waited)).Strings()
		fmt.Println(job, err)
	}
	// Output:
	// 2 true <nil>
	// [jobs one] <nil>
	// [jobs two] <nil>
	// [] <nil>
}

// The counter of a transaction: read under WATCH, write with EXEC, and again
// when somebody else was faster.
func ExampleRedis_Tx() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	for range 2 {
		_, err = r.Tx(ctx, []string{"counter"}, func(tx *madcrow.Tx) error {
			n, _, err := tx.Do(tx.B().Get().Key("counter").Build()).Int() // 0 at first
			if err != nil {
				return err
			}
			tx.Queue(tx.B().Set().Key("counter").Value(strconv.FormatInt(n+1, 10)).Build())
			return nil
		})
		fmt.Println(err)
	}
	fmt.Println(r.Do(ctx, r.B().Get().Key("counter").Build()).Int())
	// Output:
	// <nil>
	// <nil>
	// 2 true <nil>
}

func ExampleRedis_DoMulti() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	replies, err := r.DoMulti(ctx,
		r.B().Set().Key("key1").Value("value1").Build(),
		r.B().Get().Key("key1").Build(),
		r.B().Get().Key("nothing").Build(),
	)
	if err != nil {
		log.Fatal(err) // of the first command that failed
	}
	fmt.Println(replies[1].Text())
	fmt.Println(replies[2].Text())
	// Output:
	// value1 true <nil>
	//  false <nil>
}

func ExampleRedis_Eval() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	atMost := madcrow.NewScript("at-most", `
		local n = tonumber(redis.call('GET', KEYS[1]) or '0')
		if n >= tonumber(ARGV[1]) then return -1 end
		return redis.call('INCR', KEYS[1])`)
	for range 3 {
		seat, _, err := r.Eval(ctx, atMost, []string{"seats"}, []string{"2"}).Int()
		fmt.Println(seat, err)
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// -1 <nil>
}

// Messages come until the context ends. What is published while no one listens is
// lost: package pubsub subscribes again, and says when something was missed.
func ExampleRedis_Subscribe() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(context.Background())

	err = r.Subscribe(ctx, madcrow.Subscription{Patterns: []string{"orders.*"}}, madcrow.Handler{
		OnSubscribed: func(pattern string) {
			fmt.Println("listening to", pattern)
			go r.Do(ctx, r.B().Publish().Channel("orders.de").Message("7").Build())
		},
		OnMessage: func(m madcrow.PubSubMessage) {
			fmt.Println(m.Channel, m.Payload)
			cancel()
		},
	})
	fmt.Println(errors.Is(err, madcrow.ErrCanceled))
	// Output:
	// listening to orders.*
	// orders.de 7
	// true
}

// What to do with a failure depends on its kind, and whether to repeat it on
// its outcome.
func ExampleError() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, madcrow.Config{Host: "127.0.0.1", Port: 1}) // no one is there
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	err = r.Do(ctx, r.B().Incr().Key("n").Build()).Err()
	var e *madcrow.Error
	if errors.As(err, &e) {
		fmt.Println(e.Op, "|", e.Kind, "|", e.Outcome, "|", errors.Is(err, madcrow.ErrUnavailable))
	}
	// Output: INCR | unavailable | not applied | true
}
