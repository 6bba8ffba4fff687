package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

// ledger has the outcomes of publishing numbered messages.
type ledger struct {
	mu             sync.Mutex
	acked, unknown map[int]bool
	refused        int // surely not published, and tried again
}

// pump publishes total messages from several goroutines, evenly over a time,
// each until it is acknowledged or its outcome is unknown.
func pump(t *testing.T, total int, over time.Duration, publish func(context.Context, int) error) *ledger {
	l := &ledger{acked: map[int]bool{}, unknown: map[int]bool{}}
	start := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= total {
					return
				}
				time.Sleep(time.Until(start.Add(time.Duration(n) * over / time.Duration(total))))
				l.one(t, n, publish)
			}
		})
	}
	wg.Wait()
	return l
}

func (l *ledger) one(t *testing.T, n int, publish func(context.Context, int) error) {
	for end := time.Now().Add(30 * time.Second); ; {
		err := publish(context.Background(), n)
		var e *madcrow.Error
		l.mu.Lock()
		switch {
		case err == nil:
			l.acked[n] = true
		case errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied:
			l.refused++
			l.mu.Unlock()
			if time.Now().After(end) {
				t.Errorf("message %d could not be published: %v", n, err)
				return
			}
			time.Sleep(2 * time.Millisecond)
			continue
		default:
			l.unknown[n] = true
		}
		l.mu.Unlock()
		return
	}
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d acknowledged, %d unknown, %d refusals tried again", len(l.acked), len(l.unknown), l.refused)
}
