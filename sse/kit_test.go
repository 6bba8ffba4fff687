package sse_test

import (
	"context"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

type note struct {
	N int `json:"n"`
}

func openConfig(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

func newBus(t testing.TB, r *madcrow.Redis, opt pubsub.Options) *pubsub.Bus {
	t.Helper()
	b, err := pubsub.New(r, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = b.Close(ctx)
	})
	return b
}
