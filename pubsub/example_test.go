package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
)

// exampleBus is a bus as a program has one, on a Redis that the tests started.
func exampleBus(name string, options pubsub.Options) (bus *pubsub.Bus, end func()) {
	ctx := context.Background()
	cfg := config // in a program: madcrow.ConfigFromEnv()
	cfg.KeyPrefix, cfg.Require = name+":", true
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	if bus, err = pubsub.New(r, options); err != nil {
		log.Fatal(err)
	}
	return bus, func() {
		_ = bus.Close(ctx)
		_ = r.Close(ctx)
	}
}

type order struct {
	ID   int
	Paid bool
}

// Whoever listens now is told; what is lost is told, too.
func ExampleTopic() {
	bus, end := exampleBus("ExampleTopic", pubsub.Options{})
	defer end()
	orders, err := pubsub.NewTopic(bus, "orders", pubsub.TopicOptions[order]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e, err := range orders.Subscribe(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case e.Kind == pubsub.EventSubscribed: // what is published from now on comes
			n, err := orders.Publish(ctx, order{ID: 7, Paid: true})
			fmt.Println("receivers:", n, err)
		case e.Kind == pubsub.EventMessage:
			fmt.Printf("%s: %+v\n", e.Channel, e.Message)
			return
		case e.Kind == pubsub.EventGap, e.Kind == pubsub.EventMissed:
			fmt.Println("something was missed: read anew")
		}
	}
	// Output:
	// receivers: 1 <nil>
	// orders: {ID:7 Paid:true}
}

// Texts as they are, for programs in other languages: without the envelope.
func ExampleTopic_Handle() {
	bus, end := exampleBus("ExampleTopic_Handle", pubsub.Options{})
	defer end()
	news, err := pubsub.NewTopic(bus, "news", pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = news.Handle(ctx, func(ctx context.Context, e pubsub.Event[string]) {
		switch e.Kind {
		case pubsub.EventSubscribed:
			_, _ = news.Publish(ctx, "hello")
		case pubsub.EventMessage:
			fmt.Println(e.Message)
			cancel()
		}
	})
	fmt.Println(err)
	// Output:
	// hello
	// <nil>
}

// All channels that match.
func ExamplePattern() {
	bus, end := exampleBus("ExamplePattern", pubsub.Options{})
	defer end()
	rooms, err := pubsub.NewPattern(bus, "room:*", pubsub.TopicOptions[string]{})
	if err != nil {
		log.Fatal(err)
	}
	blue, err := pubsub.NewTopic(bus, "room:blue", pubsub.TopicOptions[string]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e, err := range rooms.Subscribe(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case e.Kind == pubsub.EventSubscribed:
			_, _ = blue.Publish(ctx, "hello")
		case e.Kind == pubsub.EventMessage:
			fmt.Println(e.Channel, e.Message)
			return
		}
	}
	// Output: room:blue hello
}

// Several channels in one loop.
func ExampleNewTopics() {
	bus, end := exampleBus("ExampleNewTopics", pubsub.Options{})
	defer end()
	both, err := pubsub.NewTopics(bus, []string{"red", "blue"}, pubsub.TopicOptions[string]{})
	if err != nil {
		log.Fatal(err)
	}
	blue, err := pubsub.NewTopic(bus, "blue", pubsub.TopicOptions[string]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e, err := range both.Subscribe(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case e.Kind == pubsub.EventSubscribed: // to both
			_, _ = blue.Publish(ctx, "hello")
		case e.Kind == pubsub.EventMessage:
			fmt.Println(e.Channel, e.Message)
			return
		}
	}
	// Output: blue hello
}

// A slow listener keeps the newest messages, and is told how many it lost.
func ExampleWithOverflow() {
	bus, end := exampleBus("ExampleWithOverflow", pubsub.Options{})
	defer end()
	prices, err := pubsub.NewTopic(bus, "prices", pubsub.TopicOptions[int]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e, err := range prices.Subscribe(ctx, pubsub.WithQueue(2), pubsub.WithOverflow(pubsub.DropOldest)) {
		switch {
		case err != nil:
			log.Fatal(err)
		case e.Kind == pubsub.EventSubscribed:
			for n := range 10 {
				_, _ = prices.Publish(ctx, n)
			}
			time.Sleep(200 * time.Millisecond) // it is slow
		case e.Kind == pubsub.EventDropped:
			fmt.Println("lost:", e.N)
		case e.Kind == pubsub.EventMessage:
			fmt.Println(e.Message)
			if e.Message == 9 {
				return
			}
		}
	}
	// Output:
	// lost: 8
	// 8
	// 9
}

// Who was away gets what it missed, in order and once.
func ExampleRecoverable() {
	bus, end := exampleBus("ExampleRecoverable", pubsub.Options{})
	defer end()
	feed, err := pubsub.NewRecoverable(bus, "feed", pubsub.RecoverableOptions[string]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	seen, receivers, err := feed.Publish(ctx, "the last one that was seen")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("receivers:", receivers)
	_, _, _ = feed.Publish(ctx, "missed")
	saved := seen.String() // kept in a cookie, a file, a database

	after, err := pubsub.ParsePosition(saved)
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range feed.Subscribe(ctx, after) {
		switch {
		case err != nil:
			log.Fatal(err)
		case e.Kind == pubsub.EventMessage:
			fmt.Println(e.Message)
			if e.Message == "live" {
				return
			}
		case e.Kind == pubsub.EventSubscribed: // all that was missed has come
			_, _, _ = feed.Publish(ctx, "live")
		case e.Kind == pubsub.EventHistoryLost:
			fmt.Println("the history does not go back so far: read anew")
		}
	}
	// Output:
	// receivers: 0
	// missed
	// live
}

// Each message is for one worker of the group, until one has done it.
func ExampleStream() {
	bus, end := exampleBus("ExampleStream", pubsub.Options{})
	defer end()
	mails, err := pubsub.NewStream(bus, "mails", pubsub.StreamOptions[order]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := mails.Publish(ctx, order{ID: 7}); err != nil {
		log.Fatal(err)
	}
	err = mails.Work(ctx, "senders", func(_ context.Context, d pubsub.Delivery[order]) error {
		fmt.Printf("%+v, delivery %d\n", d.Message, d.Deliveries)
		if d.Deliveries == 1 {
			return errors.New("the mail server is away") // it is tried again
		}
		cancel() // Work finishes what is under way
		return nil
	}, pubsub.WorkOptions{RetryDelay: 10 * time.Millisecond})
	fmt.Println(err)
	// Output:
	// {ID:7 Paid:false}, delivery 1
	// {ID:7 Paid:false}, delivery 2
	// <nil>
}

// What fails too often is put aside, and can be sent again.
func ExampleStream_Dead() {
	bus, end := exampleBus("ExampleStream_Dead", pubsub.Options{})
	defer end()
	mails, err := pubsub.NewStream(bus, "mails", pubsub.StreamOptions[order]{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _ = mails.Publish(ctx, order{ID: 7})
	go func() {
		_ = mails.Work(ctx, "senders", func(context.Context, pubsub.Delivery[order]) error {
			return errors.New("no such mailbox")
		}, pubsub.WorkOptions{MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond})
	}()
	var lag pubsub.Lag
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
	_, err = mails.Purge(ctx, "nobody")
	fmt.Println(errors.Is(err, pubsub.ErrNoGroup))
	// Output:
	// {ID:7 Paid:false}: no such mailbox, after 2 deliveries
	// sent again: true <nil>
	// true
}

// A message may come twice; its effect must not.
func ExampleBus_Once() {
	bus, end := exampleBus("ExampleBus_Once", pubsub.Options{})
	defer end()
	ctx := context.Background()
	pay := func(invoice string) {
		first, err := bus.Once(ctx, "pay:"+invoice, time.Hour)
		switch {
		case err != nil:
			fmt.Println(err)
		case !first:
			fmt.Println(invoice, "is paid already")
		default:
			fmt.Println("pay", invoice) // if that fails: bus.Forget(ctx, "pay:"+invoice)
		}
	}
	pay("invoice 7")
	pay("invoice 7")
	// Output:
	// pay invoice 7
	// invoice 7 is paid already
}

// With an outbox, messages wait while Redis is away.
func ExampleOptions_outbox() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, madcrow.Config{Host: "127.0.0.1", Port: 1}) // nobody is there
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close(ctx) }()
	bus, err := pubsub.New(r, pubsub.Options{Outbox: 1})
	if err != nil {
		log.Fatal(err)
	}
	topic, err := pubsub.NewTopic(bus, "orders", pubsub.TopicOptions[int]{})
	if err != nil {
		log.Fatal(err)
	}
	_, err = topic.Publish(ctx, 1)
	fmt.Println(errors.Is(err, pubsub.ErrQueued), errors.Is(err, madcrow.ErrUnavailable))
	_, err = topic.Publish(ctx, 2)
	fmt.Println(errors.Is(err, pubsub.ErrOutboxFull))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	fmt.Println(bus.Close(ctx)) // Redis is still away
	// Output:
	// true true
	// true
	// pubsub: 1 messages were not sent: the bus is closed
}
