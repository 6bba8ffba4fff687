package madcrow

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// conn is one open connection to a data node. It tells its owner, if it has
// one, when bytes come and when it ends.
type conn struct {
	net.Conn
	set  *connSet
	lane *lane
	loan *loan
	sub  bool // for pub/sub
	once sync.Once
}

// Write sends what was gathered. While it lets others go first, they add to the
// next write.
func (c *conn) Write(p []byte) (int, error) {
	if c.lane != nil {
		c.lane.gather()
	}
	return c.Conn.Write(p)
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.lane != nil {
		c.lane.lastRead.Store(mono())
	}
	return n, err
}

// Close is called by the client for every connection that ends, for whatever
// reason.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.set.remove(c)
		if c.lane != nil {
			c.lane.lostConn(c)
		}
		if c.loan != nil {
			c.loan.conn.CompareAndSwap(c, nil)
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
type connectorKey struct{}

// dialer returns the function that opens connections for the owner that spec
// names.
func (n *node) dialer(spec clientSpec) func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if spec.lane != nil && ctx.Value(connectorKey{}) == nil {
			// The client knows that the connection is gone before we do.
			n.doubt(&Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errRefused})
			return nil, errRefused
		}
		if spec.lane == nil && n.gate.state.Load() != gateOpen || spec.loan != nil && spec.loan.made.Load() {
			return nil, errRefused
		}
		if _, bounded := ctx.Deadline(); !bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, n.cfg.CommandTimeout)
			defer cancel()
		}
		select {
		case n.conns.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: all %d connections (REDIS_MAX_CONNECTIONS) are in use", errRefused, cap(n.conns.slots))
		}
		return n.connectSlot(ctx, spec)
	}
}

// connectSlot opens a connection in a slot that is taken, and gives the slot
// back when that fails.
func (n *node) connectSlot(ctx context.Context, spec clientSpec) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.dialTimeout())
	defer cancel()
	addr := n.addr()
	raw, err := n.dialRaw(ctx, addr)
	if err == nil && addr != n.addr() {
		_ = raw.Close() // the master moved meanwhile
		err = errRefused
	}
	if err != nil {
		<-n.conns.slots
		return nil, err
	}
	c := &conn{Conn: raw, set: n.conns, lane: spec.lane, loan: spec.loan, sub: spec.sub}
	n.conns.mu.Lock()
	n.conns.open[c] = struct{}{}
	n.conns.mu.Unlock()
	switch {
	case spec.lane != nil:
		spec.lane.gotConn(c)
	case spec.loan != nil:
		spec.loan.conn.Store(c)
	}
	if n.gate.state.Load() == gateClosed {
		_ = c.Close()
		return nil, errRefused
	}
	return c, nil
}

// dialRaw opens one connection, TLS included, and reports it.
func (n *node) dialRaw(ctx context.Context, addr string) (net.Conn, error) {
	start := time.Now()
	c, err := n.openConn(ctx, addr)
	if n.rec != nil {
		n.rec.Dial(Dial{Address: addr, Duration: time.Since(start), Err: err})
	}
	return c, err
}

func (n *node) openConn(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.dialFunc(ctx, n.network, addr)
	if err != nil || n.tls == nil {
		return c, err
	}
	t := tls.Client(c, named(n.tls, addr))
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		if ctx.Err() != nil && n.speaksPlain(addr) {
			err = errPlainText
		}
		return nil, err
	}
	return t, nil
}

// speaksPlain finds out why a server is silent in a TLS handshake: one without
// TLS waits for the end of what it takes for a command.
func (n *node) speaksPlain(addr string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), n.dialTimeout())
	defer cancel()
	c, err := n.dialFunc(ctx, n.network, addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(n.dialTimeout()))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	var first [1]byte
	_, err = c.Read(first[:])
	return err == nil && (first[0] == '+' || first[0] == '-')
}
