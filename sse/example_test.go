package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

// A browser listens by new EventSource("/events"), and gets what it missed when
// it comes back.
func ExampleNew() {
	ctx := context.Background()
	cfg := config // of a Redis that the tests started
	cfg.KeyPrefix, cfg.Require = "ExampleNew:", true
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close(ctx) }()
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = bus.Close(ctx) }()
	orders, err := pubsub.NewRecoverable(bus, "orders", pubsub.RecoverableOptions[string]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	events, err := sse.New(orders, sse.Options[string]{Retry: -1})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /events", events)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer events.Close() // with a server of your own: RegisterOnShutdown(events.Close)

	_, _ = orders.Publish(ctx, "order 1\nis paid")
	_, _ = orders.Publish(ctx, "order 2")
	res, err := http.Get(server.URL + "/events?last-event-id=" + pubsub.Beginning.String()) //nolint:noctx // an example
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = res.Body.Close() }()
	fmt.Println(res.Status, res.Header.Get("Content-Type"))
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() && lines.Text() != "event: subscribed" {
		if text := lines.Text(); len(text) < 4 || text[:4] != "id: " {
			fmt.Println(text)
		}
	}
	// Output:
	// 200 OK text/event-stream
	// data: order 1
	// data: is paid
	//
	// data: order 2
}
