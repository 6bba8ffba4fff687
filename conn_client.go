package madcrow

import (
	"context"
	"crypto/tls"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// Each lane is one pipelined connection. Its client keeps sent commands in a
// ring of this many slots and blocks, deaf to contexts, when the ring is full.
// So it never gets full.
const (
	ringScale   = 12
	sharedSlots = 1<<ringScale - 64 // some stay for the client's own commands
)

// clientSpec says for what a client is.
type clientSpec struct {
	shared    *sharedConn    // its owner, or
	dedicated *dedicatedConn // its owner, or none
	ringScale int
	sub       bool // it is for pub/sub
	blockwise bool // one command at a time
}

// newClient makes a client that is not connected yet: its first dial is
// refused, which it reports and survives.
func (n *endpoint) newClient(spec clientSpec) (rueidis.Client, error) {
	opt := rueidis.ClientOption{
		InitAddress:         []string{"redis"}, // the dialer knows where that is
		ForceSingleClient:   true,
		DialCtxFn:           n.refuseFirst(n.dialer(spec)),
		Dialer:              net.Dialer{Timeout: n.cfg.ConnectTimeout, KeepAlive: -1},
		ConnWriteTimeout:    max(keepAlive, 2*n.cfg.CommandTimeout),
		Username:            n.cfg.Username,
		Password:            n.cfg.Password,
		SelectDB:            n.cfg.DB,
		ClientName:          n.cfg.ClientName,
		DisableRetry:        true,
		DisableCache:        true,
		AlwaysPipelining:    !spec.blockwise,
		PipelineMultiplex:   -1,
		RingScaleEachConn:   spec.ringScale,
		BlockingPipeline:    math.MaxInt,
		BlockingPoolSize:    n.cfg.MaxConnections,
		BlockingPoolCleanup: 100 * time.Millisecond,
		ReadBufferEachConn:  ioBuffer,
		WriteBufferEachConn: ioBuffer,
	}
	if spec.shared != nil {
		opt.OnInvalidations = spec.shared.onInvalidation
	}
	if spec.sub || spec.shared != nil { // tried when idle
		opt.Dialer.KeepAlive = keepAlive
		opt.ConnWriteTimeout = max(keepAlive, n.cfg.CommandTimeout)
	}
	if n.cfg.Fetch != nil {
		opt.AuthCredentialsFn = n.credentials
	} else if n.cfg.Reread != nil {
		opt.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			user, password := n.cfg.Reread()
			return rueidis.AuthCredentials{Username: user, Password: password}, nil
		}
	}
	c, err := rueidis.NewClient(opt)
	if c == nil {
		return nil, err
	}
	return c, nil
}

// refuseFirst refuses the dial that the client makes when it is made.
func (n *endpoint) refuseFirst(dial dialFunc) dialFunc {
	var made atomic.Bool
	return func(ctx context.Context, addr string, d *net.Dialer, tc *tls.Config) (net.Conn, error) {
		if made.CompareAndSwap(false, true) {
			return nil, fault.ErrNotOpen
		}
		return dial(ctx, addr, d, tc)
	}
}

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)
