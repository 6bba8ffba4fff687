// Package node keeps one Redis server: whether calls may go to it, its connections,
// the prober that dials and probes, what the server is and what it refuses.
package node

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Config is what a node needs to know.
type Config struct {
	Conn          conn.Config
	Address       string // where it is; with Discovery, until that knows
	BulkThreshold int    // from this size on, commands get a connection of their own

	Clustered bool // a master of a cluster
	Replica   bool // a replica of a cluster: it serves reads after READONLY
	Reader    bool // it is to be a replica
	// ByName says that the address may lead to another server later: a name,
	// or a Dialer. The cluster's map and the Sentinels name servers themselves.
	ByName bool

	Discovery Discovery // nil: the address does not change
	Changed   func()    // is called when Status would show something else
}

// Discovery finds the server of a node that moves.
type Discovery interface {
	// Locate returns where the master is, or nothing when no one knows and the
	// master that was known last may still serve. try counts failures.
	Locate(ctx context.Context, try int) (addr string, err *fault.Error)
	// Late is why no address was found so far; nil when one was.
	Late() error
	// Patience is how much longer calls wait for a node that must be found.
	Patience() time.Duration
}

// Node is one Redis server: its availability, its connections and its prober.
type Node struct {
	*conn.Endpoint
	config  Config
	log     *slog.Logger
	changed func()

	// These are made by newNode and stay.
	shared  []*conn.Shared
	next    atomic.Uint32 // the shared connection of the next call
	Sub     rueidis.Client
	Streams rueidis.Client // serves what is read piece by piece

	probeState
	roleState
	restrictions [fault.Restrictions]restriction
}

// probeState is what the prober remembers. Its goroutine alone uses it, but for
// what is atomic.
type probeState struct {
	served       atomic.Bool           // the node did, once
	remeasure    bool                  // the last probe was late
	helloReplies []rueidis.RedisResult // of the last connection
	downReasons  logonce.Reasons       // why it does not serve
	connectedTo  string                // the address that the log last said
	readingInfo  atomic.Bool

	// redial says that the next connect makes new connections. Whoever finds the
	// node demoted sets it, at redialNext at the soonest.
	redial      atomic.Bool
	redialNext  atomic.Int64
	redialPause atomic.Int64
}

// roleState is what the server is. The prober and the reader of INFO write it,
// and calls that were refused.
type roleState struct {
	Misfit atomic.Pointer[fault.Error] // what is wrong with a server that serves
	Info   atomic.Pointer[ServerInfo]

	nameCheckNext  int64 // when to look who answers to the name; the reader of INFO alone
	nameCheckPause int64
}

// shares divides the connections of a node. One shared connection is the fastest
// on few cores; its reader becomes the bottleneck on many.
func shares(bound int) (shared, dedicated int) {
	shared = 1
	for shared < 4 && shared*4 <= runtime.GOMAXPROCS(0)/2 && shared*2 <= bound/4 {
		shared *= 2
	}
	return shared, bound - shared - 1 // one is for pub/sub
}

// New makes a node. It connects when Run runs.
func New(life context.Context, cfg Config) (*Node, error) {
	n := &Node{
		Endpoint: conn.NewEndpoint(life, cfg.Conn, cfg.Address),
		config:   cfg, log: cfg.Conn.Log, changed: cfg.Changed,
	}
	var err error
	shared, dedicated := shares(cfg.Conn.MaxConnections)
	for range shared {
		s := conn.NewShared(n.Endpoint)
		if s.Client, err = n.NewClient(conn.ClientSpec{Shared: s, RingScale: conn.RingScale}); err != nil {
			return nil, err
		}
		n.shared = append(n.shared, s)
	}
	n.Builder = n.shared[0].Client.B()
	n.Dedicated = conn.NewPool(n.Endpoint, dedicated)
	if n.Streams, err = n.NewClient(conn.ClientSpec{RingScale: 1, Blockwise: true}); err != nil {
		return nil, err
	}
	n.Sub, err = n.NewClient(conn.ClientSpec{RingScale: 8, Sub: true})
	return n, err
}

// NextShared returns the shared connection of the next call.
func (n *Node) NextShared() *conn.Shared {
	if len(n.shared) == 1 {
		return n.shared[0]
	}
	return n.shared[n.next.Add(1)%uint32(len(n.shared))]
}

// Inflight is how many calls are under way.
func (n *Node) Inflight() (sum int32) {
	for _, s := range n.shared {
		sum += s.UnderWay()
	}
	return sum + n.Dedicated.Calls.Load()
}

// Close ends every connection. The clients are closed after that: they would
// wait for a last reply of a server that may be silent.
func (n *Node) Close() {
	n.Dedicated.CloseIdle(true)
	n.Conns.Drop()
	for _, s := range n.shared {
		s.Client.Close()
	}
	n.Streams.Close()
	n.Sub.Close()
	for end := time.Now().Add(time.Second); time.Now().Before(end) && n.Conns.Size() > 0; {
		n.Conns.Drop()
		time.Sleep(time.Millisecond)
	}
}

// EndTracking ends what was tracked on all connections.
func (n *Node) EndTracking() {
	for _, s := range n.shared {
		s.EndTracking()
	}
}

// Placeholder is no server: it classifies an error that no node gave.
func Placeholder(cfg Config) *Node {
	return &Node{Endpoint: conn.NewEndpoint(context.Background(), cfg.Conn, ""), config: cfg, log: cfg.Conn.Log, changed: func() {}}
}
