package madcrow

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// gate decides in front of a node whether a call may go on. It is what keeps
// calls from waiting inside the client, where their contexts are not heard.
type availability struct {
	state atomic.Uint32

	mu      sync.Mutex
	settled chan struct{} // closed when the gate is no longer in doubt
	cause   *fault.Error  // why it is shut or in doubt
}

const (
	// gateDoubt: a connection was lost or stays silent, the connector is
	// finding out. Calls wait for its verdict, each up to its own deadline.
	availabilityProbing uint32 = iota
	// gateOpen: calls pass.
	availabilityUp
	// gateShut: the node is known to be away. Calls fail at once.
	availabilityDown
	// gateClosed: after Close. Final.
	availabilityClosed
)

func newAvailability() *availability {
	return &availability{settled: make(chan struct{})}
}

// pass returns nil when a call may go on. Every error is one of a call that
// was not sent.
func (a *availability) wait(ctx context.Context) *fault.Error {
	for {
		switch a.state.Load() {
		case availabilityUp:
			return nil
		case availabilityProbing:
			a.mu.Lock()
			verdict, cause := a.settled, a.cause
			inDoubt := a.state.Load() == availabilityProbing
			a.mu.Unlock()
			if !inDoubt {
				continue
			}
			select {
			case <-verdict:
			case <-ctx.Done():
				return &fault.Error{Kind: fault.ContextKind(ctx.Err()), Outcome: fault.OutcomeNotApplied, Err: fault.Waited(ctx.Err(), cause)}
			}
		default:
			if state, cause := a.current(); state == availabilityDown || state == availabilityClosed {
				return cause
			}
		}
	}
}

// doubt moves an open gate into doubt, and says whether it did.
func (a *availability) suspect(cause *fault.Error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.state.CompareAndSwap(availabilityUp, availabilityProbing) {
		return false
	}
	a.cause = cause
	a.settled = make(chan struct{})
	return true
}

// settle ends the doubt, or renews the verdict. It says whether anything
// changed. The first final state stays.
func (a *availability) set(state uint32, cause *fault.Error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.state.Load()
	if old == availabilityClosed {
		return false
	}
	a.cause = cause
	a.state.Store(state)
	if old == availabilityProbing {
		close(a.settled)
	}
	return old != state
}

// condemn ends the doubt against the node. It does nothing to a gate that is
// open or shut already.
func (a *availability) setDownIfProbing(cause *fault.Error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.state.CompareAndSwap(availabilityProbing, availabilityDown) {
		return false
	}
	a.cause = cause
	close(a.settled)
	return true
}

// look returns the state and its cause as they belong together.
func (a *availability) current() (uint32, *fault.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Load(), a.cause
}

func (a *availability) lastCause() *fault.Error {
	_, cause := a.current()
	return cause
}
