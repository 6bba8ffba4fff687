package usual

import (
	"context"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

func subscribe(ctx context.Context, rdb *redis.Client, heard *site.Heard) {
	listener := rdb.Subscribe(ctx, "notifications")
	defer func() { _ = listener.Close() }()
	for {
		select {
		case message, ok := <-listener.Channel():
			if !ok {
				return
			}
			heard.Add(message.Payload)
		case <-ctx.Done():
			return
		}
	}
}
