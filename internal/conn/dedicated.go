package conn

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// Pool keeps connections that serve one caller at a time: for transactions,
// blocking commands and large values. Each has a client of its own, so that it
// hears contexts and can be ended from outside.
type Pool struct {
	endpoint *Endpoint
	permits  chan struct{}
	Calls    atomic.Int32 // that use a connection, or wait for one
	mu       sync.Mutex
	idle     []*Dedicated
	opening  map[*Dedicated]context.CancelFunc
	closed   bool
}

// Dedicated is one connection of a Pool.
type Dedicated struct {
	pool        *Pool
	client      rueidis.Client
	conn        atomic.Pointer[conn]
	Dirty       bool        // it is closed on release
	established atomic.Bool // it was connected, and is not connected again
	unusable    atomic.Bool // as Dirty, set by another goroutine
	id          int64       // of the connection at the server; 0: not asked, -1: not known

	idleSince time.Time
}

// idleFor is how long a connection is kept that no one needs.
const idleFor = time.Minute

// NewPool makes a pool of so many connections at most.
func NewPool(ep *Endpoint, size int) *Pool {
	return &Pool{endpoint: ep, permits: make(chan struct{}, size), opening: map[*Dedicated]context.CancelFunc{}}
}

// Acquire returns a connection, which the caller releases. Each wait in it ends
// with ctx.
func (p *Pool) Acquire(ctx context.Context) (*Dedicated, *fault.Error) {
	if err := p.AcquirePermit(ctx); err != nil {
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
	return p.Open(ctx)
}

// AcquirePermit waits until the server is up and a connection may be open. Its
// caller opens one, and releases that.
func (p *Pool) AcquirePermit(ctx context.Context) *fault.Error {
	if err := p.endpoint.Availability.Wait(ctx); err != nil {
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

// Open makes a new connection, in a goroutine that the caller can leave: a
// connection that takes longer than its caller may wait is for the next one.
func (p *Pool) Open(ctx context.Context) (*Dedicated, *fault.Error) {
	d := &Dedicated{pool: p}
	var failed error
	err := runDetached(ctx, func() error {
		life, stop := context.WithTimeout(p.endpoint.Life, p.endpoint.Config.ConnectTimeout)
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
		d.Dirty = failed != nil
		d.Release()
	})
	return p.openResult(ctx, d, err)
}

// CancelDials ends the dials that are under way: the server is away, and one that
// comes back is dialled again.
func (p *Pool) CancelDials() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stop := range p.opening {
		stop()
	}
}

// runDetached runs do in a goroutine and returns its error, or that of ctx if that
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

func (d *Dedicated) connect(ctx context.Context) error {
	var err error
	if d.client, err = d.pool.endpoint.NewClient(ClientSpec{dedicated: d, RingScale: 4}); err != nil {
		return err
	}
	err = d.client.Do(ctx, d.client.B().Ping().Build()).Error()
	d.established.Store(true) // another connection would not have the WATCH of this one
	if _, ok := rueidis.IsRedisErr(err); ok && d.conn.Load() != nil {
		return nil // it answers, if not to this; the caller's command has its own reply
	}
	return err
}

func (p *Pool) openResult(ctx context.Context, d *Dedicated, err error) (*Dedicated, *fault.Error) {
	switch {
	case err == nil:
		return d, nil
	case err != fault.ErrCallerLeft:
		d.Dirty = true
		d.Release()
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

// Do sends commands. After a failure of the connection, or a caller who left,
// no one uses it again.
func (d *Dedicated) Do(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	finished := false
	defer func() { d.Dirty = d.Dirty || !finished }()
	for i := range cmds {
		cmds[i] = cmds[i].ToPipe() // also those that block: on this connection
	}
	results := d.client.DoMulti(ctx, cmds...)
	finished = !broken(results)
	return results
}

// ID is the number of the connection at the server, and 0 where the server does
// not say it. It asks once, on the connection itself.
func (d *Dedicated) ID(ctx context.Context) int64 {
	if d.id == 0 {
		d.id = -1
		if id, err := d.Do(ctx, d.client.B().ClientId().Build())[0].AsInt64(); err == nil {
			d.id = id
		}
	}
	return max(d.id, 0)
}

// NotReusable has the connection ended on release.
func (d *Dedicated) NotReusable() { d.unusable.Store(true) }

// Release gives the connection back, or ends it, and never waits. It is called
// once for each take.
func (d *Dedicated) Release() {
	p := d.pool
	p.mu.Lock()
	keep := !d.Dirty && !d.unusable.Load() && !p.closed && d.conn.Load() != nil
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

// discard closes the connection first: the client would wait for a last reply.
func (d *Dedicated) discard() {
	d.closeConn()
	if d.client != nil {
		go d.client.Close()
	}
}

// Trim ends the connections that no one used for a while, all but one.
func (p *Pool) Trim() {
	p.mu.Lock()
	var old []*Dedicated
	for len(p.idle) > 1 && time.Since(p.idle[0].idleSince) > idleFor {
		old = append(old, p.idle[0])
		p.idle = p.idle[1:]
	}
	p.mu.Unlock()
	for _, d := range old {
		d.discard()
	}
}

func (d *Dedicated) closeConn() {
	if c := d.conn.Load(); c != nil {
		_ = c.Close()
	}
}

// CloseIdle ends the connections that no one uses.
func (p *Pool) CloseIdle(final bool) {
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

// Dedicate makes a client of the caller's own, which no one else uses, and the
// function that releases it. It connects with its first command. The permit is taken.
func (p *Pool) Dedicate(ctx context.Context) (rueidis.DedicatedClient, func(), error) {
	d := &Dedicated{pool: p, Dirty: true}
	var client rueidis.DedicatedClient // the goroutine may set it after the caller has left
	err := runDetached(ctx, func() error {
		var err error
		if d.client, err = p.endpoint.NewClient(ClientSpec{dedicated: d, RingScale: 4}); err == nil {
			client, _ = d.client.Dedicate()
		}
		return err
	}, d.Release)
	if err != nil {
		if err != fault.ErrCallerLeft {
			d.Release()
		}
		return nil, nil, err
	}
	return client, d.Release, nil
}
