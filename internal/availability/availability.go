// Package availability says whether calls may go to a server. It keeps calls
// from waiting inside the client, where their contexts are not heard.
package availability

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// State is what is known of a server.
type State uint32

// The states.
const (
	// Probing: a connection was lost or stays silent, and the prober finds out
	// whether the server serves. Calls wait for that, each up to its deadline.
	Probing State = iota
	// Up: calls are sent.
	Up
	// Down: the server is known to be away. Calls fail at once.
	Down
	// Closed: after Close. Final.
	Closed
)

// Monitor is the state of one server. Everybody may report a suspicion; only
// the prober says that the server is up. The zero value is not usable.
type Monitor struct {
	state atomic.Uint32
	woken chan struct{}

	mu      sync.Mutex
	settled chan struct{} // closed when the state is no longer Probing
	cause   *fault.Error  // why it is Down, or Probing
}

// New returns a Monitor that is Probing.
func New() *Monitor {
	return &Monitor{settled: make(chan struct{}), woken: make(chan struct{}, 1)}
}

// Load returns the state.
func (m *Monitor) Load() State { return State(m.state.Load()) }

// IsUp reports whether calls are sent.
func (m *Monitor) IsUp() bool { return m.Load() == Up }

// Wait returns nil when a call may be sent. Every error is one of a call that
// was not sent.
func (m *Monitor) Wait(ctx context.Context) *fault.Error {
	for {
		switch m.Load() {
		case Up:
			return nil
		case Probing:
			m.mu.Lock()
			settled, cause := m.settled, m.cause
			probing := m.Load() == Probing
			m.mu.Unlock()
			if !probing {
				continue
			}
			select {
			case <-settled:
			case <-ctx.Done():
				return fault.NotSent("", fault.ContextKind(ctx.Err()), fault.Waited(ctx.Err(), cause))
			}
		default:
			if state, cause := m.Current(); state == Down || state == Closed {
				return cause
			}
		}
	}
}

// Suspect makes a server that is Up one that is Probing, and wakes its prober.
// It reports whether it did.
func (m *Monitor) Suspect(cause *fault.Error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.state.CompareAndSwap(uint32(Up), uint32(Probing)) {
		return false
	}
	m.cause = cause
	m.settled = make(chan struct{})
	select {
	case m.woken <- struct{}{}:
	default:
	}
	return true
}

// Woken receives after a suspicion.
func (m *Monitor) Woken() <-chan struct{} { return m.woken }

// Set sets a state and its cause, and reports whether the state is another one.
// Closed stays.
func (m *Monitor) Set(state State, cause *fault.Error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.Load()
	if old == Closed {
		return false
	}
	m.cause = cause
	m.state.Store(uint32(state))
	if old == Probing {
		close(m.settled)
	}
	return old != state
}

// SetDownIfProbing makes a server that is Probing one that is Down, and reports
// whether it did.
func (m *Monitor) SetDownIfProbing(cause *fault.Error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.state.CompareAndSwap(uint32(Probing), uint32(Down)) {
		return false
	}
	m.cause = cause
	close(m.settled)
	return true
}

// Current returns the state and its cause as they belong together.
func (m *Monitor) Current() (State, *fault.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Load(), m.cause
}

// Cause returns why the server is Down or Probing, or nil.
func (m *Monitor) Cause() *fault.Error {
	_, cause := m.Current()
	return cause
}
