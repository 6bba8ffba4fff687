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

// Subscribers of the moment get messages; what is lost is reported too.
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
			fmt.Println("something was missed: read again")
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
func ExampleNewPatterns() {
	bus, end := exampleBus("ExamplePattern", pubsub.Options{})
	defer end()
	rooms, err := pubsub.NewPatterns(bus, []string{"room:*"}, pubsub.TopicOptions[string]{})
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

// A slow listener keeps the newest messages, and gets the number that it lost.
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
	seen, err := feed.Publish(ctx, "the last one that was seen")
	if err != nil {
		log.Fatal(err)
	}
	_, _ = feed.Publish(ctx, "missed")
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
			_, _ = feed.Publish(ctx, "live")
		case e.Kind == pubsub.EventHistoryLost:
			fmt.Println("the history does not go back so far: read again")
		}
	}
	// Output:
	// missed
	// live
}

// With an outbox, messages wait while Redis is away.
func ExampleOptions_outbox() {
	ctx := context.Background()
	r, err := madcrow.Open(ctx, madcrow.Config{Host: "127.0.0.1", Port: 1}) // no one is there
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
