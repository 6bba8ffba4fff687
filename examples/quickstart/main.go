package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
)

type Product struct {
	Name  string
	Price int
}

func main() {
	ctx := context.Background()
	cfg, err := madcrow.ConfigFromEnv() // REDIS_HOST, REDIS_URL, …
	if err != nil {
		log.Fatal(err) // lists every problem, each with its fix
	}
	cfg.Logger = slog.Default()      // outages, their reasons and their ends; without it nothing is logged
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)

	products, err := cache.New(r, "products", cache.Options[Product]{TTL: 5 * time.Minute, NearCacheBytes: 16 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer products.Close(ctx)

	for range 2 {
		p, err := products.GetOrLoad(ctx, "lamp", load)
		fmt.Println(p, err)
	}
}

// load asks your database. All processes together call it once for each product.
func load(ctx context.Context) (Product, error) {
	fmt.Println("loading")
	return Product{Name: "Lamp", Price: 4900}, nil
}
