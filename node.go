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

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Times of the connection to a node.
const (
	// keepAlive is how often an idle connection is tried by the client.
	keepAlive = time.Second
	// minHandshake is the least time after which a dial and its handshake count
	// as slow.
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
	target   atomic.Pointer[string] // where it is now
	finder   *finder                // nil when that never changes
	dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

	availability *availability.Monitor
	conns        *connSet
	shared       []*sharedConn
	next         atomic.Uint32
	dedicated    *dedicatedPool
	sub          rueidis.Client
	// builder makes the commands for all of them.
	builder Builder
	// streams serves what is read piece by piece.
	streams rueidis.Client
	creds   credentialCache
	life    context.Context // ends with Close

	rtt          atomic.Int64 // of the probe's last PING
	handshake    atomic.Int64 // of the probe's last dial and PING together; 0 before
	kick         chan struct{}
	listeners    *invalidationListeners // are told what changed; nil: nobody
	found        atomic.Bool            // the Sentinels have named a master
	replicas     *replicas              // nil: none are wanted
	announced    atomic.Pointer[string] // one that they named just now
	changed      func()
	readOnly     atomic.Bool
	served       atomic.Bool                 // it did, once
	misfit       atomic.Pointer[fault.Error] // what is wrong with a server that serves
	remeasure    bool                        // the last probe was late; for the prober
	helloReplies []rueidis.RedisResult       // of the last connection, for the prober

	downReasons      logonce.Reasons // why it does not serve
	connectedTo      string          // what the log last said; the connector's
	discoveryReasons logonce.Reasons // why the Sentinels do not tell where it is
	findFailures     atomic.Int32    // how often in a row they did not

	clustered   bool        // a master of a cluster
	noPushes    atomic.Bool // it was said that no pushes arrive
	proofs      chan proofRequest
	replica     bool // a replica of a cluster: it must be told to serve reads
	reader      bool // it is to be a replica
	readingInfo atomic.Bool
	redial      atomic.Bool // the next connect makes new connections
	redialNext  atomic.Int64
	redialPause atomic.Int64

	info         atomic.Pointer[ServerInfo]
	restrictions [fault.Restrictions]restriction

	// byName says that the address may lead to another server later: a name,
	// or a Dialer. The cluster's map and the Sentinels name servers themselves.
	byName         bool
	nameCheckNext  int64 // when to look there again, by readInfo alone
	nameCheckPause int64
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

func newNode(life context.Context, cfg Config, changed func()) (*node, error) {
	n := &node{
		life: life,
		cfg:  cfg, log: cfg.Logger, rec: cfg.Recorder, changed: changed,
		network:      "tcp",
		availability: availability.New(), conns: newConnSet(cfg.MaxConnections),
		proofs: make(chan proofRequest, 4),
	}
	if cfg.Socket != "" {
		n.network = "unix"
	}
	n.dialFunc = cfg.Dialer
	if n.dialFunc == nil {
		n.dialFunc = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	n.move(cfg.address())
	var err error
	if cfg.Sentinel.Enabled {
		n.finder = newFinder(cfg)
	}
	lanes, pooled := shares(cfg.MaxConnections)
	for range lanes {
		s := newSharedConn(n)
		if s.client, err = n.newClient(clientSpec{shared: s, ringScale: ringScale}); err != nil {
			return nil, err
		}
		n.shared = append(n.shared, s)
	}
	n.builder = n.shared[0].client.B()
	n.dedicated = newDedicatedPool(n, pooled)
	if n.streams, err = n.newClient(clientSpec{ringScale: 1, blockwise: true}); err != nil {
		return nil, err
	}
	n.sub, err = n.newClient(clientSpec{ringScale: 8, sub: true})
	return n, err
}

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
func (n *node) newClient(spec clientSpec) (rueidis.Client, error) {
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
	if n.cfg.Credentials != nil {
		opt.AuthCredentialsFn = n.credentials
	} else if len(n.cfg.files.secrets) > 0 {
		opt.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			user, password := n.cfg.credentials(false)
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
func (n *node) refuseFirst(dial dialFunc) dialFunc {
	var made atomic.Bool
	return func(ctx context.Context, addr string, d *net.Dialer, tc *tls.Config) (net.Conn, error) {
		if made.CompareAndSwap(false, true) {
			return nil, fault.ErrNotOpen
		}
		return dial(ctx, addr, d, tc)
	}
}

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

func (n *node) addr() string { return *n.target.Load() }

func (n *node) move(addr string) { n.target.Store(&addr) }

// lane chooses where the next call goes.
func (n *node) nextShared() *sharedConn {
	if len(n.shared) == 1 {
		return n.shared[0]
	}
	return n.shared[n.next.Add(1)%uint32(len(n.shared))]
}

// usual is how long a dial with its handshake, or a reply on a connection that
// is open, takes at most when nothing is amiss. What takes longer is tried once
// more beside it; it is not given up.
func (n *node) usual() time.Duration {
	return max(minHandshake, 3*time.Duration(n.handshake.Load()))
}

func (n *node) silence() time.Duration {
	return max(minSilence, 2*time.Duration(n.rtt.Load()))
}

func (n *node) inflight() (sum int32) {
	for _, s := range n.shared {
		sum += s.inflight.Load()
	}
	return sum + n.dedicated.calls.Load()
}

// close ends every connection. The clients are told after that: they would
// wait for a last reply of a server that may be silent.
func (n *node) close() {
	n.dedicated.closeIdle(true)
	n.conns.drop()
	for _, s := range n.shared {
		s.client.Close()
	}
	n.streams.Close()
	n.sub.Close()
	for end := time.Now().Add(time.Second); time.Now().Before(end) && n.conns.size() > 0; {
		n.conns.drop()
		time.Sleep(time.Millisecond)
	}
}
