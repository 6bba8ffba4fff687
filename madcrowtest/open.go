package madcrowtest

import (
	"context"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Open opens a Redis and waits until it is connected. It is closed when the
// test ends. A Close that takes longer than 5 seconds is an error of the test.
func Open(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}
