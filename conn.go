package madcrow

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// conn is one open connection to a data node. It tells its owner, if it has
// one, when bytes come and when it ends.
type conn struct {
	net.Conn
	set       *connSet
	shared    *sharedConn
	dedicated *dedicatedConn
	sub       bool // for pub/sub
	once      sync.Once
}

// Write sends what was gathered. While it lets others go first, they add to the
// next write.
func (c *conn) Write(p []byte) (int, error) {
	if c.shared != nil {
		c.shared.coalesce()
	}
	return c.Conn.Write(p)
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.shared != nil {
		c.shared.lastRead.Store(clock.Now())
	}
	return n, err
}

// Close is called by the client for every connection that ends, for whatever
// reason.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.set.remove(c)
		if c.shared != nil {
			c.shared.disconnected(c)
		}
		if c.dedicated != nil {
			c.dedicated.conn.CompareAndSwap(c, nil)
		}
	})
	return err
}

// connSet holds the open connections to one data node and bounds their number.
type connSet struct {
	slots chan struct{}
	mu    sync.Mutex
	open  map[*conn]struct{}
}

func newConnSet(bound int) *connSet {
	return &connSet{slots: make(chan struct{}, bound), open: map[*conn]struct{}{}}
}

func (s *connSet) remove(c *conn) {
	s.mu.Lock()
	_, ok := s.open[c]
	delete(s.open, c)
	s.mu.Unlock()
	if ok {
		<-s.slots
	}
}

func (s *connSet) size() int { return len(s.slots) }

// closeSubscriptions closes the connections for pub/sub.
func (s *connSet) closeSubscriptions() { s.dropThose(func(c *conn) bool { return c.sub }) }

// drop closes all connections.
func (s *connSet) drop() { s.dropThose(func(*conn) bool { return true }) }

func (s *connSet) dropThose(which func(*conn) bool) {
	s.mu.Lock()
	list := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range list {
		if which(c) {
			_ = c.Close()
		}
	}
}

// connectorKey marks the context of the connector, the only one that may dial
// for a lane: a caller's deadline is not heard while others dial.
type proberKey struct{}

// dialer returns the function that opens connections for the owner that spec
// names.
func (n *endpoint) dialer(spec clientSpec) func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if spec.shared != nil && ctx.Value(proberKey{}) == nil {
			// The client knows that the connection is gone before we do.
			n.availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrNotOpen})
			return nil, fault.ErrNotOpen
		}
		if spec.shared == nil && !n.availability.IsUp() || spec.dedicated != nil && spec.dedicated.established.Load() {
			return nil, fault.ErrNotOpen
		}
		wait, cancel := context.WithTimeout(ctx, n.cfg.CommandTimeout)
		defer cancel()
		select {
		case n.conns.slots <- struct{}{}:
		case <-wait.Done():
			return nil, fmt.Errorf("%w: all %d connections (REDIS_MAX_CONNECTIONS) are in use", fault.ErrNotOpen, cap(n.conns.slots))
		}
		return n.connectSlot(ctx, spec)
	}
}

// connectSlot opens a connection in a slot that is taken, and gives the slot
// back when that fails.
func (n *endpoint) connectSlot(ctx context.Context, spec clientSpec) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ConnectTimeout)
	defer cancel()
	addr := n.addr()
	raw, err := n.dial(ctx, addr, n.conns.slots)
	if err == nil && addr != n.addr() {
		_ = raw.Close() // the master moved meanwhile
		err = fault.ErrNotOpen
	}
	if err != nil {
		<-n.conns.slots
		return nil, err
	}
	c := &conn{Conn: raw, set: n.conns, shared: spec.shared, dedicated: spec.dedicated, sub: spec.sub}
	n.conns.mu.Lock()
	n.conns.open[c] = struct{}{}
	n.conns.mu.Unlock()
	switch {
	case spec.shared != nil:
		spec.shared.connected(c)
	case spec.dedicated != nil:
		spec.dedicated.conn.Store(c)
	}
	if n.availability.Load() == availability.Closed {
		_ = c.Close()
		return nil, fault.ErrNotOpen
	}
	return c, nil
}

const (
	// maxDials bounds the dials of one connection that run at the same time,
	// dialEvery is between the later ones.
	maxDials  = 4
	dialEvery = time.Second
)

// dial opens one connection. A dial that takes longer than usual is made again
// beside it, and the first that is done serves: so one that is slow has all the
// time of ctx, and a packet that is lost costs milliseconds. The first dial is
// in a slot that is taken; each other one needs one of its own, while there is
// any. slots is nil for a connection that is not counted.
func (n *endpoint) dial(ctx context.Context, addr string, slots chan struct{}) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type dialled struct {
		conn net.Conn
		err  error
	}
	results := make(chan dialled, maxDials)
	begin := func() {
		go func() {
			c, err := n.dialRaw(ctx, addr)
			results <- dialled{c, err}
		}()
	}
	begin()
	running := 1
	finish := func(r dialled) (net.Conn, error) {
		others := running - 1
		if others > 0 {
			go func() { // they hear that ctx ends
				for range others {
					if late := <-results; late.conn != nil {
						_ = late.conn.Close()
					}
					if slots != nil {
						<-slots
					}
				}
			}()
		}
		return r.conn, r.err
	}
	slow := time.NewTimer(n.usual())
	defer slow.Stop()
	for dials := 1; ; {
		select {
		case r := <-results:
			return finish(r)
		case <-slow.C:
			if dials < maxDials && takeSlot(slots) {
				dials++
				running++
				begin()
			}
			slow.Reset(dialEvery)
		}
	}
}

// takeSlot takes a slot when one is free; a nil channel has any number.
func takeSlot(slots chan struct{}) bool {
	if slots == nil {
		return true
	}
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// dialRaw opens one connection, TLS included, and reports it.
func (n *endpoint) dialRaw(ctx context.Context, addr string) (net.Conn, error) {
	start := time.Now()
	c, err := n.openConn(ctx, addr)
	if n.cfg.OnDial != nil {
		n.cfg.OnDial(addr, time.Since(start), err)
	}
	return c, err
}

func (n *endpoint) openConn(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.cfg.Dial(ctx, n.cfg.Network, addr)
	if err != nil || n.cfg.TLS == nil {
		return c, err
	}
	t := tls.Client(c, n.cfg.TLS(addr))
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && n.speaksPlain(addr) {
			err = fault.ErrPlainText
		}
		return nil, n.cfg.ExplainTLS(err)
	}
	return t, nil
}

// speaksPlain finds out why a server is silent in a TLS handshake: one without
// TLS waits for the end of what it takes for a command.
func (n *endpoint) speaksPlain(addr string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), n.usual())
	defer cancel()
	c, err := n.cfg.Dial(ctx, n.cfg.Network, addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(n.usual()))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	var first [1]byte
	_, err = c.Read(first[:])
	return err == nil && (first[0] == '+' || first[0] == '-')
}
