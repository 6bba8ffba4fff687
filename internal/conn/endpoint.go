// Package conn makes and bounds the connections to one server: the shared ones,
// which many calls use at once, the dedicated ones, each for one call at a time,
// and single exchanges beside them. It knows nothing of other servers; what it
// finds out about its own goes to an [availability.Monitor].
package conn

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/availability"
)

// Times of the connection to a node.
const (
	// keepAlive is how often an idle connection is tried by the client.
	keepAlive = time.Second
	// minHandshake is the least time after which a dial and its handshake count
	// as slow.
	minHandshake = 45 * time.Millisecond
	// minSilence is how long a shared connection must have been silent before a
	// call that gave up makes the server suspect.
	minSilence = 20 * time.Millisecond
	ioBuffer   = 64 << 10
)

// Config is what the connections to one server need to know.
type Config struct {
	Log     *slog.Logger
	Network string // "tcp" or "unix"
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS makes the configuration of a new connection to addr; nil: without TLS.
	TLS func(addr string) *tls.Config
	// ExplainTLS adds to a failed handshake what to do about it.
	ExplainTLS func(error) error

	Username, Password string
	// Reread returns user and password for a new connection, in the place of
	// Username and Password; nil: they do not change.
	Reread func() (user, password string)
	// Fetch asks for credentials that rotate, in the place of both; nil: none do.
	Fetch func(ctx context.Context, addr string) (Credentials, error)

	DB             int
	ClientName     string
	KeyPrefix      string
	Embedded       bool
	ConnectTimeout time.Duration
	CommandTimeout time.Duration
	MaxConnections int

	// OnDial is called after each attempt to open a connection; nil: nothing is.
	OnDial func(ctx context.Context, addr string, took time.Duration, err error)
	// Listeners are notified of invalidations; nil: nothing is.
	Listeners *Listeners
}

// Credentials are what one connection authenticates with.
type Credentials struct {
	Username, Password string
	RefreshAfter       time.Time // when the connection asks for new ones; zero: never
}

// Endpoint is one server as its connections see it: where it is, how it is
// dialled, which connections are open, and how long its replies usually take.
type Endpoint struct {
	Config       Config
	Life         context.Context // ends with Close
	Availability *availability.Monitor
	Builder      rueidis.Builder // makes the commands for all connections
	Conns        *Set
	Dedicated    *Pool
	creds        credentialCache
	target       atomic.Pointer[string] // where the server is now; the prober moves it

	// The prober measures these.
	RTT       atomic.Int64 // of the last PING
	Handshake atomic.Int64 // of the last dial and PING together; 0 before

	ReadOnly atomic.Bool // it takes no writes; the node finds out
	noPushes atomic.Bool // the log said that no pushes arrive
	Proofs   chan proofRequest
}

// NewEndpoint makes the endpoint of the server at addr. It connects nothing.
func NewEndpoint(life context.Context, cfg Config, addr string) *Endpoint {
	ep := &Endpoint{
		Config: cfg, Life: life, Availability: availability.New(), Conns: newConnSet(cfg.MaxConnections),
		Proofs: make(chan proofRequest, 4),
	}
	ep.Move(addr)
	return ep
}

// Addr is where the server is now.
func (ep *Endpoint) Addr() string { return *ep.target.Load() }

// Move says that the server is at addr from now on.
func (ep *Endpoint) Move(addr string) { ep.target.Store(&addr) }

// Usual is how long a dial with its handshake, or a reply on a connection that
// is open, takes at most when nothing is amiss. What takes longer is tried once
// more beside it; it is not given up.
func (ep *Endpoint) Usual() time.Duration {
	return max(minHandshake, 3*time.Duration(ep.Handshake.Load()))
}

func (ep *Endpoint) silence() time.Duration {
	return max(minSilence, 2*time.Duration(ep.RTT.Load()))
}
