package madcrow

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// pool lends connections that one caller has for itself: for transactions,
// blocking commands and large values. Each has a client of its own, so that it
// hears contexts and can be ended from outside.
type dedicatedPool struct {
	endpoint *endpoint
	permits  chan struct{}
	calls    atomic.Int32 // that use a connection, or wait for one
	mu       sync.Mutex
	idle     []*dedicatedConn
	opening  map[*dedicatedConn]context.CancelFunc
	closed   bool
}

// loan is one borrowed connection.
type dedicatedConn struct {
	pool        *dedicatedPool
	client      rueidis.Client
	conn        atomic.Pointer[conn]
	dirty       bool        // not to be used again
	established atomic.Bool // it was connected, and is not connected again

	idleSince time.Time
}

// idleFor is how long a borrowed connection is kept that nobody needs.
const idleFor = time.Minute

func newDedicatedPool(n *endpoint, size int) *dedicatedPool {
	return &dedicatedPool{endpoint: n, permits: make(chan struct{}, size), opening: map[*dedicatedConn]context.CancelFunc{}}
}

// take borrows a connection. It hears ctx in all that it waits for.
func (p *dedicatedPool) acquire(ctx context.Context) (*dedicatedConn, *fault.Error) {
	if err := p.acquirePermit(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	for len(p.idle) > 0 {
		d := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if d.conn.Load() != nil {
			p.mu.Unlock()
			return d, nil
		}
		d.discard()
	}
	p.mu.Unlock()
	return p.open(ctx)
}

func (p *dedicatedPool) acquirePermit(ctx context.Context) *fault.Error {
	if err := p.endpoint.availability.Wait(ctx); err != nil {
		return err
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &fault.Error{Kind: fault.ContextKind(ctx.Err()), Outcome: fault.OutcomeNotApplied, Err: fault.Waited(ctx.Err(), &fault.Error{Err: fault.ErrDedicatedBusy})}
	}
}

// open makes a new connection, in a goroutine that the caller can leave: a
// connection that takes longer than its caller may wait is for the next one.
func (p *dedicatedPool) open(ctx context.Context) (*dedicatedConn, *fault.Error) {
	d := &dedicatedConn{pool: p}
	var failed error
	err := runDetached(ctx, func() error {
		life, stop := context.WithTimeout(p.endpoint.life, p.endpoint.cfg.ConnectTimeout)
		defer stop()
		p.mu.Lock()
		p.opening[d] = stop
		p.mu.Unlock()
		failed = d.connect(life)
		p.mu.Lock()
		delete(p.opening, d)
		p.mu.Unlock()
		return failed
	}, func() {
		d.dirty = failed != nil
		d.release()
	})
	return p.openResult(ctx, d, err)
}

// abandon ends the dials that are under way: the node is away, and one that
// comes back is dialled anew.
func (p *dedicatedPool) cancelDials() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stop := range p.opening {
		stop()
	}
}

// leave runs do in a goroutine and returns its error, or that of ctx if that
// comes first; then abandoned runs when do is over.
func runDetached(ctx context.Context, do func() error, abandoned func()) error {
	var decided atomic.Bool
	done := make(chan error, 1)
	go func() {
		err := do()
		if decided.CompareAndSwap(false, true) {
			done <- err
		} else {
			abandoned()
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if decided.CompareAndSwap(false, true) {
		return fault.ErrCallerLeft
	}
	return <-done
}

func (d *dedicatedConn) connect(ctx context.Context) error {
	var err error
	if d.client, err = d.pool.endpoint.newClient(clientSpec{dedicated: d, ringScale: 4}); err != nil {
		return err
	}
	err = d.client.Do(ctx, d.client.B().Ping().Build()).Error()
	d.established.Store(true) // another connection would not have the WATCH of this one
	if _, ok := rueidis.IsRedisErr(err); ok && d.conn.Load() != nil {
		return nil // it answers, if not to this; the caller's command has its own reply
	}
	return err
}

func (p *dedicatedPool) openResult(ctx context.Context, d *dedicatedConn, err error) (*dedicatedConn, *fault.Error) {
	switch {
	case err == nil:
		return d, nil
	case err != fault.ErrCallerLeft:
		d.dirty = true
		d.release()
	}
	if reply, ok := rueidis.IsRedisErr(err); ok {
		kind, _ := fault.ClassifyReply(reply.Error())
		return nil, &fault.Error{Kind: kind, Outcome: fault.OutcomeNotApplied, Err: err}
	}
	if ctx.Err() != nil {
		return nil, &fault.Error{Kind: fault.ContextKind(ctx.Err()), Outcome: fault.OutcomeNotApplied, Err: ctx.Err()}
	}
	return nil, &fault.Error{Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("%w: %w", fault.ErrNotOpen, err)}
}

// do sends commands. After a failure of the connection, or a caller who left,
// nobody uses it again.
func (d *dedicatedConn) do(ctx context.Context, cmds ...Command) []rueidis.RedisResult {
	finished := false
	defer func() { d.dirty = d.dirty || !finished }()
	for i := range cmds {
		cmds[i] = cmds[i].ToPipe() // also those that block: on this connection
	}
	results := d.client.DoMulti(ctx, cmds...)
	finished = !broken(results)
	return results
}

// release gives the connection back, or ends it, and never waits. It is called
// once for each take.
func (d *dedicatedConn) release() {
	p := d.pool
	p.mu.Lock()
	keep := !d.dirty && !p.closed && d.conn.Load() != nil
	if keep {
		d.idleSince = time.Now()
		p.idle = append(p.idle, d)
	}
	p.mu.Unlock()
	if !keep {
		d.discard()
	}
	<-p.permits
}

// end closes the connection first: the client would wait for a last reply.
func (d *dedicatedConn) discard() {
	d.closeConn()
	if d.client != nil {
		go d.client.Close()
	}
}

// trim ends the connections that nobody used for a while, all but one.
func (p *dedicatedPool) trim() {
	p.mu.Lock()
	var old []*dedicatedConn
	for len(p.idle) > 1 && time.Since(p.idle[0].idleSince) > idleFor {
		old = append(old, p.idle[0])
		p.idle = p.idle[1:]
	}
	p.mu.Unlock()
	for _, d := range old {
		d.discard()
	}
}

func (d *dedicatedConn) closeConn() {
	if c := d.conn.Load(); c != nil {
		_ = c.Close()
	}
}

// drop ends the connections that nobody uses.
func (p *dedicatedPool) closeIdle(final bool) {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.closed = p.closed || final
	p.mu.Unlock()
	for _, d := range idle {
		d.discard()
	}
}

func broken(results []rueidis.RedisResult) bool {
	for _, r := range results {
		if r.NonRedisError() != nil {
			return true
		}
	}
	return false
}

// dedicate makes a client of the caller's own, which is ended by release and
// used by no one else. It connects with its first command. The permit is taken.
func (p *dedicatedPool) dedicate(ctx context.Context) (client rueidis.DedicatedClient, release func(), err error) {
	d := &dedicatedConn{pool: p, dirty: true}
	err = runDetached(ctx, func() error {
		var err error
		if d.client, err = p.endpoint.newClient(clientSpec{dedicated: d, ringScale: 4}); err == nil {
			client, _ = d.client.Dedicate()
		}
		return err
	}, d.release)
	if err != nil {
		if err != fault.ErrCallerLeft {
			d.release()
		}
		return nil, nil, err
	}
	return client, d.release, nil
}
