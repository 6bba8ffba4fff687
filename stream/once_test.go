package stream_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/stream"
)

// Once is true once, for however many ask at the same time.
func TestOnce_IsTrueOnce(t *testing.T) {
	r := open(t)
	var firsts atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if first, err := stream.Once(t.Context(), r, "order 17", time.Minute); err != nil {
				t.Error(err)
			} else if first {
				firsts.Add(1)
			}
		})
	}
	wg.Wait()
	if firsts.Load() != 1 {
		t.Errorf("true %d times", firsts.Load())
	}
	if err := stream.Forget(t.Context(), r, "order 17"); err != nil {
		t.Error(err)
	}
	if first, err := stream.Once(t.Context(), r, "order 17", time.Minute); !first || err != nil {
		t.Errorf("forgotten: %v, %v", first, err)
	}
}
