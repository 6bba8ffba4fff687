// Package compat_test shows calls in the style of go-redis: see
// docs/rueidiscompat.md.
package compat_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/redis/rueidis/rueidiscompat"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

func Example() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	rdb := rueidiscompat.NewAdapter(r.Client())

	fmt.Println(rdb.Set(ctx, "greeting", "hello", time.Minute).Err())
	fmt.Println(rdb.Get(ctx, "greeting").Result())
	_, err = rdb.Get(ctx, "nothing").Result()
	fmt.Println(errors.Is(err, rueidiscompat.Nil))

	pipe := rdb.Pipeline()
	pipe.Set(ctx, "key1", "value1", 0)
	pipe.Expire(ctx, "key1", 5*time.Minute)
	cmds, err := pipe.Exec(ctx)
	fmt.Println(len(cmds), err)

	err = rdb.Watch(ctx, func(tx rueidiscompat.Tx) error {
		_, err := tx.TxPipelined(ctx, func(p rueidiscompat.Pipeliner) error {
			p.Incr(ctx, "counter")
			return nil
		})
		return err
	}, "counter")
	fmt.Println(err)
	fmt.Println(rdb.Get(ctx, "counter").Int())
	// Output:
	// <nil>
	// hello <nil>
	// true
	// 2 <nil>
	// <nil>
	// 1 <nil>
}

// When Redis is away, errors are those of Madcrow.
func Example_away() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, madcrow.Config{Host: "127.0.0.1", Port: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)
	err = rueidiscompat.NewAdapter(r.Client()).Get(ctx, "greeting").Err()
	fmt.Println(errors.Is(err, madcrow.ErrUnavailable))
	// Output: true
}
