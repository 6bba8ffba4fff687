package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/stream"
)

// exampleRedis opens a Redis that the tests started.
func exampleRedis(name string) (r *madcrow.Redis, end func()) {
	cfg := config
	cfg.KeyPrefix, cfg.Require = name+":", true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	return r, func() { _ = r.Close(context.Background()) }
}

type order struct {
	ID   int
	Paid bool
}

// Each message is for one worker of the group, until one has done it.
func ExampleStream() {
	r, end := exampleRedis("ExampleStream")
	defer end()
	mails, err := stream.New(r, "mails", stream.Options[order]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := mails.Publish(ctx, order{ID: 7}); err != nil {
		log.Fatal(err)
	}
	err = mails.Work(ctx, "senders", func(_ context.Context, d stream.Delivery[order]) error {
		fmt.Printf("%+v, delivery %d\n", d.Message, d.Deliveries)
		if d.Deliveries == 1 {
			return errors.New("the mail server is away") // it is tried again
		}
		cancel() // Work finishes what is under way
		return nil
	}, stream.WorkOptions{RetryDelay: 10 * time.Millisecond})
	fmt.Println(err)
	// Output:
	// {ID:7 Paid:false}, delivery 1
	// {ID:7 Paid:false}, delivery 2
	// <nil>
}

// A message that fails too often becomes a dead letter, and can be sent again.
func ExampleStream_Dead() {
	r, end := exampleRedis("ExampleStream_Dead")
	defer end()
	mails, err := stream.New(r, "mails", stream.Options[order]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _ = mails.Publish(ctx, order{ID: 7})
	go func() {
		_ = mails.Work(ctx, "senders", func(context.Context, stream.Delivery[order]) error {
			return errors.New("no such mailbox")
		}, stream.WorkOptions{MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond})
	}()
	var lag stream.Lag
	for lag.Dead == 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		lag, _ = mails.Lag(ctx, "senders")
	}
	letters, err := mails.Dead(ctx, "senders", "", 10)
	for _, l := range letters {
		fmt.Printf("%+v: %s, after %d deliveries\n", l.Message, l.Reason, l.Deliveries)
	}
	cancel()
	if err != nil {
		log.Fatal(err)
	}
	ctx = context.Background()
	again, err := mails.Replay(ctx, "senders", letters[0].ID)
	fmt.Println("sent again:", again, err)
	_, err = mails.Purge(ctx, "no such group")
	fmt.Println(errors.Is(err, stream.ErrNoGroup))
	// Output:
	// {ID:7 Paid:false}: no such mailbox, after 2 deliveries
	// sent again: true <nil>
	// true
}

// A message may come twice; its effect must not.
func ExampleOnce() {
	r, end := exampleRedis("ExampleOnce")
	defer end()
	ctx := context.Background()
	pay := func(invoice string) {
		first, err := stream.Once(ctx, r, "pay:"+invoice, time.Hour)
		switch {
		case err != nil:
			fmt.Println(err)
		case !first:
			fmt.Println(invoice, "is paid already")
		default:
			fmt.Println("pay", invoice) // if that fails: stream.Forget(ctx, r, "pay:"+invoice)
		}
	}
	pay("invoice 7")
	pay("invoice 7")
	// Output:
	// pay invoice 7
	// invoice 7 is paid already
}

// A reminder is published for later, and cancelled when it is not needed.
func ExampleStream_PublishIn() {
	ctx := context.Background()
	r, end := exampleRedis("ExampleStream_PublishIn")
	defer end()
	reminders, err := stream.New(r, "reminders", stream.Options[string]{})
	if err != nil {
		log.Fatal(err)
	}
	id, err := reminders.PublishIn(ctx, time.Hour, "order 1 is not paid")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reminders.Cancel(ctx, id)) // it was paid
	fmt.Println(reminders.Cancel(ctx, id))
	// Output:
	// true <nil>
	// false <nil>
}

// An error that another try cannot mend makes a dead letter at once.
func ExamplePermanent() {
	ctx, cancel := context.WithCancel(context.Background())
	r, end := exampleRedis("ExamplePermanent")
	defer end()
	orders, err := stream.New(r, "orders", stream.Options[int]{
		Logger: slog.New(slog.DiscardHandler),
		OnDead: func(_ context.Context, d stream.DeadLetter[int]) {
			fmt.Println(d.Message, d.Deliveries, d.Reason)
			cancel()
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Publish(ctx, 7); err != nil {
		log.Fatal(err)
	}
	err = orders.Work(ctx, "billing", func(ctx context.Context, d stream.Delivery[int]) error {
		return stream.Permanent(errors.New("no such customer"))
	}, stream.WorkOptions{Timeout: 10 * time.Second})
	fmt.Println(err)
	// Output:
	// 7 1 no such customer
	// <nil>
}
