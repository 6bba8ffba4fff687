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

	_, err = r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Set().Key("greeting").Value("hello").Ex(time.Minute).Build()
	})
	fmt.Println("stored:", err == nil)

	msg, err := r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Get().Key("greeting").Build()
	})
	text, _ := msg.ToString()
	fmt.Println(text, err)

	msg, err = r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Get().Key("nothing").Build()
	})
	fmt.Println("absent:", msg.IsNil(), err)
	// Output:
	// stored: true
	// hello <nil>
	// absent: true <nil>
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
			msg, err := tx.Do(func(b madcrow.Builder) madcrow.Command { return b.Get().Key("counter").Build() })
			if err != nil {
				return err
			}
			n := int64(0)
			if !msg.IsNil() {
				if n, err = msg.AsInt64(); err != nil {
					return err
				}
			}
			tx.Queue(func(b madcrow.Builder) madcrow.Command {
				return b.Set().Key("counter").Value(strconv.FormatInt(n+1, 10)).Build()
			})
			return nil
		})
		fmt.Println(err)
	}
	msg, _ := r.Do(ctx, func(b madcrow.Builder) madcrow.Command { return b.Get().Key("counter").Build() })
	fmt.Println(msg.ToString())
	// Output:
	// <nil>
	// <nil>
	// 2 <nil>
}

func ExampleRedis_DoMulti() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, exampleServer)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	results, err := r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{
			b.Set().Key("key1").Value("value1").Build(),
			b.Set().Key("key2").Value("value2").Build(),
			b.Expire().Key("key1").Seconds(300).Build(),
		}
	})
	fmt.Println(len(results), err)
	// Output: 3 <nil>
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
		msg, err := r.Eval(ctx, atMost, []string{"seats"}, []string{"2"})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(msg.AsInt64())
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// -1 <nil>
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

	_, err = r.Do(ctx, func(b madcrow.Builder) madcrow.Command { return b.Incr().Key("n").Build() })
	var e *madcrow.Error
	if errors.As(err, &e) {
		fmt.Println(e.Op, "|", e.Kind, "|", e.Outcome, "|", errors.Is(err, madcrow.ErrUnavailable))
	}
	// Output: INCR | unavailable | not applied | true
}
