// Command quickstart is the program of the README.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/service"
)

func main() {
	ctx := context.Background()
	cfg, err := madcrow.ConfigFromEnv() // REDIS_HOST, REDIS_URL, …
	if err != nil {
		log.Fatal(err) // lists every problem, each with its fix
	}
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)
	s := service.New(r)

	if err := s.SetCache(ctx, "greeting", "hello", time.Minute); err != nil {
		log.Print(err) // kind, outcome and cause
	}
	fmt.Println(s.GetCache(ctx, "greeting")) // hello true <nil>
}
