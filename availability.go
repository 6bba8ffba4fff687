package madcrow

import (
	"context"
	"sync"
	"sync/atomic"
)

// gate decides in front of a node whether a call may go on. It is what keeps
// calls from waiting inside the client, where their contexts are not heard.
type gate struct {
	state atomic.Uint32

	mu      sync.Mutex
	verdict chan struct{} // closed when the gate is no longer in doubt
	cause   *Error        // why it is shut or in doubt
}

const (
	// gateDoubt: a connection was lost or stays silent, the connector is
	// finding out. Calls wait for its verdict, each up to its own deadline.
	gateDoubt uint32 = iota
	// gateOpen: calls pass.
	gateOpen
	// gateShut: the node is known to be away. Calls fail at once.
	gateShut
	// gateClosed: after Close. Final.
	gateClosed
)

func newGate() *gate {
	return &gate{verdict: make(chan struct{})}
}

// pass returns nil when a call may go on. Every error is one of a call that
// was not sent.
func (g *gate) pass(ctx context.Context) *Error {
	for {
		switch g.state.Load() {
		case gateOpen:
			return nil
		case gateDoubt:
			g.mu.Lock()
			verdict, cause := g.verdict, g.cause
			inDoubt := g.state.Load() == gateDoubt
			g.mu.Unlock()
			if !inDoubt {
				continue
			}
			select {
			case <-verdict:
			case <-ctx.Done():
				return &Error{Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: waited(ctx.Err(), cause)}
			}
		default:
			if state, cause := g.look(); state == gateShut || state == gateClosed {
				return cause
			}
		}
	}
}

// doubt moves an open gate into doubt, and says whether it did.
func (g *gate) doubt(cause *Error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.state.CompareAndSwap(gateOpen, gateDoubt) {
		return false
	}
	g.cause = cause
	g.verdict = make(chan struct{})
	return true
}

// settle ends the doubt, or renews the verdict. It says whether anything
// changed. The first final state stays.
func (g *gate) settle(state uint32, cause *Error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.state.Load()
	if old == gateClosed {
		return false
	}
	g.cause = cause
	g.state.Store(state)
	if old == gateDoubt {
		close(g.verdict)
	}
	return old != state
}

// condemn ends the doubt against the node. It does nothing to a gate that is
// open or shut already.
func (g *gate) condemn(cause *Error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.state.CompareAndSwap(gateDoubt, gateShut) {
		return false
	}
	g.cause = cause
	close(g.verdict)
	return true
}

// look returns the state and its cause as they belong together.
func (g *gate) look() (uint32, *Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state.Load(), g.cause
}

func (g *gate) why() *Error {
	_, cause := g.look()
	return cause
}
