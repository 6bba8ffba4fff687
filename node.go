package madcrow

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Times of the connection to a node.
const (
	// keepAlive is how often an idle connection is tried by the client.
	keepAlive = time.Second
	// minHandshake is the least time for a dial and its handshake: callers who
	// come at the wrong moment may have to wait it out.
	minHandshake = 45 * time.Millisecond
	// minSilence is how long a lane must have been silent before a call that
	// gave up puts the node in doubt.
	minSilence = 20 * time.Millisecond
	ioBuffer   = 64 << 10
)

// node is one Redis server: its gate, its connections and its connector.
type node struct {
	cfg      Config
	log      *slog.Logger
	rec      Recorder
	network  string
	addr     string
	tls      *tls.Config
	dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

	gate  *gate
	conns *connSet
	lanes []*lane
	next  atomic.Uint32
	pool  *pool
	sub   rueidis.Client

	rtt       atomic.Int64 // of the probe's last PING
	handshake atomic.Int64 // of the probe's last dial and PING together; 0 before
	kick      chan struct{}
	changed   func()
	readOnly  atomic.Bool

	redial      atomic.Bool // the next connect makes new connections
	redialNext  atomic.Int64
	redialPause atomic.Int64

	info atomic.Pointer[ServerInfo]
}

// shares divides the connections of a node. One lane is the fastest on few
// cores; the reader of a lane becomes the bottleneck on many.
func shares(bound int) (lanes, pooled int) {
	lanes = 1
	for lanes < 4 && lanes*4 <= runtime.GOMAXPROCS(0)/2 && lanes*2 <= bound/4 {
		lanes *= 2
	}
	return lanes, bound - lanes - 1 // one is for pub/sub
}

func newNode(cfg Config, changed func()) (*node, error) {
	n := &node{
		cfg: cfg, log: cfg.Logger, rec: cfg.Recorder, changed: changed,
		network: "tcp", addr: cfg.address(),
		gate: newGate(), conns: newConnSet(cfg.MaxConnections),
		kick: make(chan struct{}, 1),
	}
	if cfg.Socket != "" {
		n.network = "unix"
	}
	n.dialFunc = cfg.Dialer
	if n.dialFunc == nil {
		n.dialFunc = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	tc, err := cfg.tlsConfig(cfg.Host)
	if err != nil {
		return nil, err
	}
	n.tls = tc
	lanes, pooled := shares(cfg.MaxConnections)
	for range lanes {
		l := newLane(n)
		if l.client, err = n.newClient(l, ringScale, true); err != nil {
			return nil, err
		}
		n.lanes = append(n.lanes, l)
	}
	dedicated, err := n.newClient(nil, 4, false)
	if err != nil {
		return nil, err
	}
	n.pool = newPool(n, dedicated, pooled)
	n.sub, err = n.newClient(nil, 8, true)
	return n, err
}

// newClient makes a client that is not connected yet: its first dial is
// refused, which it reports and survives.
func (n *node) newClient(l *lane, scale int, pipelined bool) (rueidis.Client, error) {
	opt := rueidis.ClientOption{
		InitAddress:         []string{n.addr},
		ForceSingleClient:   true,
		DialCtxFn:           n.dialer(l),
		TLSConfig:           n.tls,
		Dialer:              net.Dialer{Timeout: n.cfg.ConnectTimeout, KeepAlive: keepAlive},
		ConnWriteTimeout:    max(keepAlive, 2*n.cfg.CommandTimeout),
		Username:            n.cfg.Username,
		Password:            n.cfg.Password,
		SelectDB:            n.cfg.DB,
		ClientName:          n.cfg.ClientName,
		DisableRetry:        true,
		DisableCache:        true,
		AlwaysPipelining:    pipelined,
		PipelineMultiplex:   -1,
		RingScaleEachConn:   scale,
		BlockingPipeline:    math.MaxInt,
		BlockingPoolSize:    n.cfg.MaxConnections,
		BlockingPoolCleanup: 5 * time.Minute,
		BlockingPoolMinSize: 1,
		ReadBufferEachConn:  ioBuffer,
		WriteBufferEachConn: ioBuffer,
	}
	if n.cfg.Credentials != nil {
		opt.AuthCredentialsFn = n.credentials
	}
	c, err := rueidis.NewClient(opt)
	if c == nil {
		return nil, err
	}
	return c, nil
}

func (n *node) credentials(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ConnectTimeout)
	defer cancel()
	c, err := n.cfg.Credentials(ctx, CredentialsRequest{Address: n.addr})
	return rueidis.AuthCredentials{Username: c.Username, Password: c.Password, RefreshAfter: c.RefreshAfter}, err
}

// lane chooses where the next call goes.
func (n *node) lane() *lane {
	if len(n.lanes) == 1 {
		return n.lanes[0]
	}
	return n.lanes[n.next.Add(1)%uint32(len(n.lanes))]
}

// dialTimeout bounds a dial that others may have to wait for. Only the probe,
// for which nobody waits, takes as long as the configuration allows.
func (n *node) dialTimeout() time.Duration {
	return max(minHandshake, 3*time.Duration(n.handshake.Load()))
}

func (n *node) silence() time.Duration {
	return max(minSilence, 2*time.Duration(n.rtt.Load()))
}

// doubt stops new calls until the connector has looked.
func (n *node) doubt(cause *Error) {
	if n.gate.doubt(cause) {
		n.wake()
	}
}

func (n *node) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

func (n *node) inflight() (sum int32) {
	for _, l := range n.lanes {
		sum += l.inflight.Load()
	}
	return sum
}

func (n *node) hangUp() {
	for _, l := range n.lanes {
		l.hangUp()
	}
}

// close ends every connection. The clients are told after that: they would
// wait for a last reply of a server that may be silent.
func (n *node) close() {
	n.conns.drop(true)
	for _, l := range n.lanes {
		l.client.Close()
	}
	n.pool.client.Close()
	n.sub.Close()
	for end := time.Now().Add(time.Second); time.Now().Before(end) && (n.conns.size() > 0 || len(n.pool.permits) > 0); {
		n.conns.drop(true)
		time.Sleep(time.Millisecond)
	}
}
