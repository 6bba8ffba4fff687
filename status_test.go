package madcrow

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// bareRedis is a Redis with one node, which nothing connects: the test sets its
// availability.
func bareRedis(t *testing.T) *Redis {
	t.Helper()
	top, err := topology.New(t.Context(), topology.Config{Node: node.Config{Conn: conn.Config{Network: "tcp", MaxConnections: 8}, Address: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(top.Close)
	return &Redis{watchers: map[chan Status]struct{}{}, topology: top, last: Status{State: StateConnecting}}
}

// observe read the cause and the state one after the other: Status().Err could
// be a typed nil.
func TestStatus_ErrIsNoTypedNil(t *testing.T) {
	r := bareRedis(t)
	why := &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Err: errors.New("x")}
	stop := time.Now().Add(300 * time.Millisecond)
	var wg sync.WaitGroup
	wg.Go(func() { // the prober
		for time.Now().Before(stop) {
			r.topology.One().Availability.Set(availability.Up, nil)
			r.observe()
			r.topology.One().Availability.Set(availability.Down, why)
			r.observe()
		}
	})
	wg.Go(func() { // a caller whose write was refused (setReadOnly, changed)
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("panic: %v", p)
			}
		}()
		for time.Now().Before(stop) {
			r.observe()
			if e, ok := r.Status().Err.(*Error); ok && e == nil {
				t.Error("Status().Err is a typed nil")
				return
			}
		}
	})
	wg.Wait()
}

// A change between the first status and the registration was not yielded.
func TestWatch_EndsWithTheLastState(t *testing.T) {
	missed, n := 0, 0
	top := bareRedis(t).topology
	for stop := time.Now().Add(300 * time.Millisecond); time.Now().Before(stop); {
		top.One().Availability = availability.New()
		r := &Redis{watchers: map[chan Status]struct{}{}, topology: top, last: Status{State: StateConnecting}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(time.Microsecond)
			r.topology.One().Availability.Set(availability.Up, nil)
			r.observe()
		}()
		var all []<-chan Status
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			all = append(all, r.Watch(context.Background()))
		}
		for _, ch := range all {
			n++
			if st := <-ch; st.State != StateUp { // newest is in the channel
				missed++
			}
		}
	}
	if missed > 0 {
		t.Errorf("%d of %d watchers were left with an old state", missed, n)
	}
}
