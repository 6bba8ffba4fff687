package cache_test

import (
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

// strict is true in `make chaos`, which runs alone and without the race
// detector; otherwise promised times have four times the slack.
var strict = testkit.Chaos

func slack(d time.Duration) time.Duration {
	if strict {
		return d
	}
	return 4 * d
}

// lateness measures, beside a load, how late the scheduler wakes a goroutine
// that only sleeps. What it finds is not the library's fault.
type lateness struct {
	most atomic.Int64
	stop chan struct{}
	done chan struct{}
}

func measureLateness() *lateness {
	l := &lateness{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			start := time.Now()
			select {
			case <-l.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if late := int64(time.Since(start) - 5*time.Millisecond); late > l.most.Load() {
				l.most.Store(late)
			}
		}
	}()
	return l
}

func (l *lateness) end() time.Duration {
	close(l.stop)
	<-l.done
	return time.Duration(l.most.Load())
}
