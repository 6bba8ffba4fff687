package conn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// proberKey marks the context of the prober, which alone may dial for a shared
// connection: the deadline of a caller would not end that dial.
type proberKey struct{}

// ProberContext is the context of the prober of an endpoint.
func ProberContext(ctx context.Context) context.Context {
	return context.WithValue(ctx, proberKey{}, true)
}

// dialer returns the function that opens connections for the owner that spec
// names.
func (ep *Endpoint) dialer(spec ClientSpec) func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if spec.Shared != nil && ctx.Value(proberKey{}) == nil {
			// The client knows that the connection is gone before we do.
			ep.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrNotOpen})
			return nil, fault.ErrNotOpen
		}
		if spec.Shared == nil && !ep.Availability.IsUp() || spec.dedicated != nil && spec.dedicated.established.Load() {
			return nil, fault.ErrNotOpen
		}
		wait, cancel := context.WithTimeout(ctx, ep.Config.CommandTimeout)
		defer cancel()
		select {
		case ep.Conns.slots <- struct{}{}:
		case <-wait.Done():
			return nil, fmt.Errorf("%w: all %d connections (REDIS_MAX_CONNECTIONS) are in use", fault.ErrNotOpen, cap(ep.Conns.slots))
		}
		return ep.connectSlot(ctx, spec)
	}
}

// connectSlot opens a connection in a slot that is taken, and gives the slot
// back when that fails.
func (ep *Endpoint) connectSlot(ctx context.Context, spec ClientSpec) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ep.Config.ConnectTimeout)
	defer cancel()
	addr := ep.Addr()
	raw, err := ep.Dial(ctx, addr, ep.Conns.slots)
	if err == nil && addr != ep.Addr() {
		_ = raw.Close() // the master moved meanwhile
		err = fault.ErrNotOpen
	}
	if err != nil {
		<-ep.Conns.slots
		return nil, err
	}
	c := &conn{Conn: raw, set: ep.Conns, shared: spec.Shared, dedicated: spec.dedicated, sub: spec.Sub}
	ep.Conns.mu.Lock()
	ep.Conns.open[c] = struct{}{}
	ep.Conns.mu.Unlock()
	switch {
	case spec.Shared != nil:
		spec.Shared.connected(c)
	case spec.dedicated != nil:
		spec.dedicated.conn.Store(c)
	}
	if ep.Availability.Load() == availability.Closed {
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

// Dial opens one connection. A dial that takes longer than usual is made again
// beside it, and the first that is done serves: so one that is slow has all the
// time of ctx, and a packet that is lost costs milliseconds. The first dial is
// in a slot that is taken; each other one needs one of its own, while there is
// any. slots is nil for a connection that is not counted.
func (ep *Endpoint) Dial(ctx context.Context, addr string, slots chan struct{}) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type dialled struct {
		conn net.Conn
		err  error
	}
	results := make(chan dialled, maxDials)
	begin := func() {
		go func() {
			c, err := ep.dialRaw(ctx, addr)
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
	slow := time.NewTimer(ep.Usual())
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
func (ep *Endpoint) dialRaw(ctx context.Context, addr string) (net.Conn, error) {
	start := time.Now()
	c, err := ep.openConn(ctx, addr)
	if ep.Config.OnDial != nil {
		ep.Config.OnDial(ctx, addr, time.Since(start), err)
	}
	return c, err
}

func (ep *Endpoint) openConn(ctx context.Context, addr string) (net.Conn, error) {
	c, err := ep.Config.Dial(ctx, ep.Config.Network, addr)
	if err != nil || ep.Config.TLS == nil {
		return c, err
	}
	t := tls.Client(c, ep.Config.TLS(addr))
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && ep.speaksPlain(addr) {
			err = fault.ErrPlainText
		}
		return nil, ep.Config.ExplainTLS(err)
	}
	return t, nil
}

// speaksPlain finds out why a server is silent in a TLS handshake: one without
// TLS waits for the end of what it takes for a command.
func (ep *Endpoint) speaksPlain(addr string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), ep.Usual())
	defer cancel()
	c, err := ep.Config.Dial(ctx, ep.Config.Network, addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(ep.Usual()))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	var first [1]byte
	_, err = c.Read(first[:])
	return err == nil && (first[0] == '+' || first[0] == '-')
}
