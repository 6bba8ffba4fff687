package conn

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

// Each shared connection is pipelined. Its client keeps sent commands in a
// ring of this many slots and blocks, deaf to contexts, when the ring is full.
// So it never gets full.
const (
	RingScale   = 12
	sharedSlots = 1<<RingScale - 64 // some stay for the client's own commands
)

// ClientSpec says for what a client is.
type ClientSpec struct {
	Shared    *Shared    // its owner, or
	dedicated *Dedicated // its owner, or none
	RingScale int
	Sub       bool // it is for pub/sub
	Blockwise bool // one command at a time
}

// NewClient makes a client that is not connected yet: its first dial is
// refused, which it reports and survives.
func (ep *Endpoint) NewClient(spec ClientSpec) (rueidis.Client, error) {
	opt := rueidis.ClientOption{
		InitAddress:         []string{"redis"}, // the dialer knows where that is
		ForceSingleClient:   true,
		DialCtxFn:           ep.refuseFirst(ep.dialer(spec)),
		Dialer:              net.Dialer{Timeout: ep.Config.ConnectTimeout, KeepAlive: -1},
		ConnWriteTimeout:    max(keepAlive, 2*ep.Config.CommandTimeout),
		Username:            ep.Config.Username,
		Password:            ep.Config.Password,
		SelectDB:            ep.Config.DB,
		ClientName:          ep.Config.ClientName,
		DisableRetry:        true,
		DisableCache:        true,
		AlwaysPipelining:    !spec.Blockwise,
		PipelineMultiplex:   -1,
		RingScaleEachConn:   spec.RingScale,
		BlockingPipeline:    math.MaxInt,
		BlockingPoolSize:    ep.Config.MaxConnections,
		BlockingPoolCleanup: 100 * time.Millisecond,
		ReadBufferEachConn:  ioBuffer,
		WriteBufferEachConn: ioBuffer,
	}
	if spec.Shared != nil {
		opt.OnInvalidations = spec.Shared.onInvalidation
	}
	if spec.Sub || spec.Shared != nil { // tried when idle
		opt.Dialer.KeepAlive = keepAlive
		opt.ConnWriteTimeout = max(keepAlive, ep.Config.CommandTimeout)
	}
	if ep.Config.Fetch != nil {
		opt.AuthCredentialsFn = ep.credentials
	} else if ep.Config.Reread != nil {
		opt.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			user, password := ep.Config.Reread()
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
func (ep *Endpoint) refuseFirst(dial dialFunc) dialFunc {
	var made atomic.Bool
	return func(ctx context.Context, addr string, d *net.Dialer, tc *tls.Config) (net.Conn, error) {
		if made.CompareAndSwap(false, true) {
			return nil, fault.ErrNotOpen
		}
		return dial(ctx, addr, d, tc)
	}
}

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)
