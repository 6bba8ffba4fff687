package madcrow

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// pool lends connections that one caller has for itself: for transactions,
// blocking commands and large values. Each has a client of its own, so that it
// hears contexts and can be ended from outside.
type pool struct {
	node    *node
	permits chan struct{}
	calls   atomic.Int32 // that use a connection, or wait for one
	mu      sync.Mutex
	idle    []*loan
	opening map[*loan]context.CancelFunc
	closed  bool
}

// loan is one borrowed connection.
type loan struct {
	pool   *pool
	client rueidis.Client
	conn   atomic.Pointer[conn]
	dirty  bool        // not to be used again
	made   atomic.Bool // it was connected, and is not connected again

	idleSince time.Time
}

// idleFor is how long a borrowed connection is kept that nobody needs.
const idleFor = time.Minute

func newPool(n *node, size int) *pool {
	return &pool{node: n, permits: make(chan struct{}, size), opening: map[*loan]context.CancelFunc{}}
}

// take borrows a connection. It hears ctx in all that it waits for.
func (p *pool) take(ctx context.Context) (*loan, *Error) {
	if err := p.permit(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	for len(p.idle) > 0 {
		l := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if l.conn.Load() != nil {
			p.mu.Unlock()
			return l, nil
		}
		l.end()
	}
	p.mu.Unlock()
	return p.open(ctx)
}

func (p *pool) permit(ctx context.Context) *Error {
	if err := p.node.gate.pass(ctx); err != nil {
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
		return &Error{Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: waited(ctx.Err(), &Error{Err: errBorrowed})}
	}
}

// open makes a new connection, in a goroutine that the caller can leave: a
// connection that takes longer than its caller may wait is for the next one.
func (p *pool) open(ctx context.Context) (*loan, *Error) {
	l := &loan{pool: p}
	var failed error
	err := leave(ctx, func() error {
		life, stop := context.WithTimeout(p.node.life, p.node.cfg.ConnectTimeout)
		defer stop()
		p.mu.Lock()
		p.opening[l] = stop
		p.mu.Unlock()
		failed = l.connect(life)
		p.mu.Lock()
		delete(p.opening, l)
		p.mu.Unlock()
		return failed
	}, func() {
		l.dirty = failed != nil
		l.release()
	})
	return p.opened(ctx, l, err)
}

// abandon ends the dials that are under way: the node is away, and one that
// comes back is dialled anew.
func (p *pool) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stop := range p.opening {
		stop()
	}
}

// leave runs do in a goroutine and returns its error, or that of ctx if that
// comes first; then abandoned runs when do is over.
func leave(ctx context.Context, do func() error, abandoned func()) error {
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
		return errLeft
	}
	return <-done
}

func (l *loan) connect(ctx context.Context) error {
	var err error
	if l.client, err = l.pool.node.newClient(clientSpec{loan: l, ringScale: 4}); err != nil {
		return err
	}
	err = l.client.Do(ctx, l.client.B().Ping().Build()).Error()
	l.made.Store(true) // another connection would not have the WATCH of this one
	if _, ok := rueidis.IsRedisErr(err); ok && l.conn.Load() != nil {
		return nil // it answers, if not to this; the caller's command has its own reply
	}
	return err
}

func (p *pool) opened(ctx context.Context, l *loan, err error) (*loan, *Error) {
	switch {
	case err == nil:
		return l, nil
	case err != errLeft:
		l.dirty = true
		l.release()
	}
	if reply, ok := rueidis.IsRedisErr(err); ok {
		kind, _ := classifyReply(reply.Error())
		return nil, &Error{Kind: kind, Outcome: OutcomeNotApplied, Err: err}
	}
	if ctx.Err() != nil {
		return nil, &Error{Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: ctx.Err()}
	}
	return nil, &Error{Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: fmt.Errorf("%w: %w", errRefused, err)}
}

// do sends commands. After a failure of the connection, or a caller who left,
// nobody uses it again.
func (l *loan) do(ctx context.Context, cmds ...Command) []rueidis.RedisResult {
	finished := false
	defer func() { l.dirty = l.dirty || !finished }()
	for i := range cmds {
		cmds[i] = cmds[i].ToPipe() // also those that block: on this connection
	}
	results := l.client.DoMulti(ctx, cmds...)
	finished = !broken(results)
	return results
}

// release gives the connection back, or ends it, and never waits. It is called
// once for each take.
func (l *loan) release() {
	p := l.pool
	p.mu.Lock()
	keep := !l.dirty && !p.closed && l.conn.Load() != nil
	if keep {
		l.idleSince = time.Now()
		p.idle = append(p.idle, l)
	}
	p.mu.Unlock()
	if !keep {
		l.end()
	}
	<-p.permits
}

// end closes the connection first: the client would wait for a last reply.
func (l *loan) end() {
	l.hangUp()
	if l.client != nil {
		go l.client.Close()
	}
}

// trim ends the connections that nobody used for a while, all but one.
func (p *pool) trim() {
	p.mu.Lock()
	var old []*loan
	for len(p.idle) > 1 && time.Since(p.idle[0].idleSince) > idleFor {
		old = append(old, p.idle[0])
		p.idle = p.idle[1:]
	}
	p.mu.Unlock()
	for _, l := range old {
		l.end()
	}
}

func (l *loan) hangUp() {
	if c := l.conn.Load(); c != nil {
		_ = c.Close()
	}
}

// drop ends the connections that nobody uses.
func (p *pool) drop(final bool) {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.closed = p.closed || final
	p.mu.Unlock()
	for _, l := range idle {
		l.end()
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
