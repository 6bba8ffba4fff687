package testkit

import (
	"sync/atomic"
	"time"
)

// Lateness measures, beside a load, how late the scheduler wakes a goroutine
// that only sleeps. That much of an overshoot is not the library's fault.
type Lateness struct {
	most atomic.Int64
	stop chan struct{}
	done chan struct{}
}

// MeasureLateness starts the measurement.
func MeasureLateness() *Lateness {
	l := &Lateness{stop: make(chan struct{}), done: make(chan struct{})}
	go l.run()
	return l
}

func (l *Lateness) run() {
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
}

// Stop ends the measurement and returns the worst lateness.
func (l *Lateness) Stop() time.Duration {
	close(l.stop)
	<-l.done
	return time.Duration(l.most.Load())
}
