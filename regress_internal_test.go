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
)

func bareRedis() *Redis {
	r := &Redis{watchers: map[chan Status]struct{}{}, topology: &engineTopology{node: node.Placeholder(node.Config{Conn: conn.Config{MaxConnections: 1}})}}
	r.topology.node.Move("127.0.0.1:1")
	r.last = Status{State: StateConnecting}
	return r
}

// observe reads the cause and the state one after the other.
func TestRegress_ObserveTypedNil(t *testing.T) {
	r := bareRedis()
	why := &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Err: errors.New("x")}
	stop := time.Now().Add(300 * time.Millisecond)
	var wg sync.WaitGroup
	wg.Go(func() { // the connector
		for time.Now().Before(stop) {
			r.topology.node.Availability.Set(availability.Up, nil)
			r.observe()
			r.topology.node.Availability.Set(availability.Down, why)
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

// A change between the first status and the registration is never told.
func TestRegress_WatchMissesTheLastState(t *testing.T) {
	missed, n := 0, 0
	for stop := time.Now().Add(300 * time.Millisecond); time.Now().Before(stop); {
		r := bareRedis()
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(time.Microsecond)
			r.topology.node.Availability.Set(availability.Up, nil)
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
		t.Errorf("%d of %d watchers were left with an old state for ever", missed, n)
	}
}
