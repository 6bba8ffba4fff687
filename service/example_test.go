package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/service"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

func connect(ctx context.Context) (*service.Service, *madcrow.Redis) {
	cfg := config // a program calls ConfigFromEnv
	cfg.Require = true
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return service.New(r, service.Options{}), r
}

func ExampleService_GetCache() {
	ctx := context.Background()
	s, r := connect(ctx)
	defer r.Close(ctx)

	_, found, err := s.GetCache(ctx, "data:7")
	fmt.Println(found, err)
	fmt.Println(s.SetCache(ctx, "data:7", "seven", 5*time.Minute))
	fmt.Println(s.GetCache(ctx, "data:7"))
	// Output:
	// false <nil>
	// <nil>
	// seven true <nil>
}

// Values that are read often are kept in the process, and Redis says when one
// changes.
func ExampleOptions_nearCache() {
	ctx := context.Background()
	_, r := connect(ctx)
	defer r.Close(ctx)
	s := service.New(r, service.Options{NearCacheBytes: 16 << 20}) // bytes

	fmt.Println(s.SetCache(ctx, "motd", "hello", time.Hour))
	for range 1000 { // one question, and 999 answers from this process
		if _, _, err := s.GetCache(ctx, "motd"); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(s.SetCache(ctx, "motd", "bye", time.Hour))
	fmt.Println(s.GetCache(ctx, "motd"))
	// Output:
	// <nil>
	// <nil>
	// bye true <nil>
}

func ExampleService_SetSession() {
	ctx := context.Background()
	s, r := connect(ctx)
	defer r.Close(ctx)

	type user struct {
		ID   int    `json:"user_id"`
		Role string `json:"role"`
	}
	fmt.Println(s.SetSession(ctx, "d2f1c0", user{7, "admin"}, 24*time.Hour))

	data, found, err := s.GetSession(ctx, "d2f1c0")
	if err != nil || !found {
		log.Fatal(found, err)
	}
	var u user
	if err := json.Unmarshal(data, &u); err != nil {
		log.Fatal(err)
	}
	fmt.Println(u.Role)
	// Output:
	// <nil>
	// admin
}

// Ten requests a minute for each client: what to do when Redis is away is the
// caller's decision, made by looking at the error.
func ExampleService_CheckRateLimit() {
	ctx := context.Background()
	s, r := connect(ctx)
	defer r.Close(ctx)

	for range 3 {
		d, err := s.CheckRateLimit(ctx, "api_action:192.0.2.1", 2, time.Minute)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Allowed, d.Remaining, d.RetryAfter > 0)
	}
	// Output:
	// true 1 false
	// true 0 false
	// false 0 true
}

// An operator looks at a client's limit, and lets the client in.
func ExampleService_ResetRateLimit() {
	ctx := context.Background()
	s, r := connect(ctx)
	defer r.Close(ctx)

	const client = "rate_limit:198.51.100.7"
	for range 3 {
		if _, err := s.CheckRateLimit(ctx, client, 2, time.Hour); err != nil {
			log.Fatal(err)
		}
	}
	d, err := s.PeekRateLimit(ctx, client, 2, time.Hour)
	fmt.Println(d.Allowed, d.Count, d.RetryAfter.Round(time.Minute), err)
	fmt.Println(s.ResetRateLimit(ctx, client))
	d, err = s.PeekRateLimit(ctx, client, 2, time.Hour)
	fmt.Println(d.Allowed, d.Count, err)
	// Output:
	// false 2 1h0m0s <nil>
	// true <nil>
	// true 0 <nil>
}

func ExampleService_Subscribe() {
	ctx := context.Background()
	s, r := connect(ctx)
	defer r.Close(ctx)

	for event, err := range s.Subscribe(ctx, "notifications") {
		if err != nil {
			log.Fatal(err)
		}
		switch event.Kind {
		case pubsub.EventSubscribed:
			if _, err := s.Publish(ctx, "notifications", "hello"); err != nil {
				log.Fatal(err)
			}
		case pubsub.EventMessage:
			fmt.Println(event.Channel, event.Message)
			return
		}
	}
	// Output: notifications hello
}
