package semaphore_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/semaphore"
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

// Not how often but how many at a time: two exports of one customer.
func Example() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	exports, err := semaphore.New(r, "exports", semaphore.Options{Limit: 2, FailPolicy: madcrow.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	var held []*semaphore.Lease
	for range 3 {
		lease, d, err := exports.TryAcquire(ctx, "customer:7")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Allowed, d.Remaining)
		if lease != nil { // do the work under lease.Context()
			held = append(held, lease)
		}
	}
	if err := held[0].Release(ctx); err != nil {
		log.Fatal(err)
	}
	d, err := exports.Peek(ctx, "customer:7")
	fmt.Println("free:", d.Remaining, err)
	fmt.Println(held[1].Release(ctx))
	// Output:
	// true 1
	// true 0
	// false 0
	// free: 1 <nil>
	// <nil>
}

// Acquire tries again, every tenth of the TTL, until a lease is free.
func ExampleSemaphore_Acquire() {
	ctx := context.Background()
	r := connect(ctx)
	defer r.Close(ctx)
	jobs, err := semaphore.New(r, "jobs", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed, LeaseTTL: 2 * time.Second})
	if err != nil {
		log.Fatal(err)
	}

	first, _, err := jobs.TryAcquire(ctx, "nightly")
	if err != nil || first == nil {
		log.Fatal("not acquired: ", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = first.Release(ctx) })

	second, err := jobs.Acquire(ctx, "nightly")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(context.Cause(first.Context()), second.Context().Err())
	fmt.Println(second.Release(ctx))
	// Output:
	// context canceled <nil>
	// <nil>
}
