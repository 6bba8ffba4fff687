package madcrow

import "time"

// State is what is known of the connection, without asking.
type State uint8

// The states of a [Redis].
const (
	// StateConnecting: it is not known yet.
	StateConnecting State = iota
	// StateUp: every node serves.
	StateUp
	// StateDegraded: usable, with a restriction that Status names: the node
	// takes no writes, runs no scripts, refuses calls because a quota is used
	// up, or redirects some keys to other nodes of its cluster; or the Redis is
	// an embedded one.
	StateDegraded
	// StateDown: no node serves; calls fail at once.
	StateDown
	// StateClosed: after Close.
	StateClosed
)

// String returns "connecting", "up", "degraded", "down" or "closed".
func (s State) String() string {
	switch s {
	case StateConnecting:
		return "connecting"
	case StateUp:
		return "up"
	case StateDegraded:
		return "degraded"
	case StateDown:
		return "down"
	case StateClosed:
		return "closed"
	}
	return "unknown"
}

// Status is a snapshot of the connection, for health pages. Nothing in it is
// asked of Redis when it is read.
type Status struct {
	State State
	// Since is when the state began.
	Since time.Time
	// Mode is "standalone", "sentinel", "cluster" or "embedded".
	Mode string
	// Address is the configured one, without credentials: host:port, a
	// socket's path, or what was given to find the rest.
	Address string
	// Master is the address of the node that takes writes now. Empty with a
	// cluster, and before it is found.
	Master string
	// Err is why the state is not up; nil when it is.
	Err error
	// ReadOnly is true when the node takes no writes.
	ReadOnly bool
	// RTT is the last measured round trip of a probe.
	RTT time.Duration
	// Connections that are open now, and their bound.
	Connections, MaxConnections int
	// Sentinels is what they last said; nil without Sentinel.
	Sentinels *SentinelStatus
	// ReadReplicas is how many replicas serve reads with [Replica] now. It is 0
	// when Config.ReadReplicas is not set.
	ReadReplicas int
	// Nodes are the masters of a cluster, by address; nil otherwise.
	Nodes []NodeStatus
	// SlotsCovered is how many of the 16,384 slots of a cluster are served.
	SlotsCovered int
	// Server is what Redis last said of itself; zero before that, or when the
	// user may not run INFO.
	Server ServerInfo
}

// ServerInfo is a part of Redis' INFO.
type ServerInfo struct {
	// Name is the server's own: "redis", "valkey", "dragonfly", "keydb",
	// "garnet" or "kvrocks".
	Name string
	// Version is that of the server itself, not of the Redis it stands in for.
	Version          string
	ConnectedClients int
	UsedMemoryHuman  string
	// Uptime is how long the server had run, in whole seconds.
	Uptime time.Duration
	// MaxMemoryPolicy is what it does when it is full: "noeviction", or what it then
	// deletes. EvictedKeys is how many keys it deleted for that since it started.
	MaxMemoryPolicy string
	EvictedKeys     int64
	Role            string // "master" or "slave", in Redis' words
	// Replicas are those that are connected to this master.
	Replicas []ReplicaStatus
	// At is when it was read.
	At time.Time
}

// ReplicaStatus is a replica as its master sees it.
type ReplicaStatus struct {
	Address string
	// State is "online" when it is in step.
	State string
	// Lag is how long nothing was heard of it, in whole seconds.
	Lag time.Duration
}

// NodeStatus is one master of a cluster.
type NodeStatus struct {
	Address string
	// Available says whether calls to it are sent now; Err why not.
	Available bool
	Err       error
	RTT       time.Duration
	Server    ServerInfo
}

// SentinelStatus is what the Sentinels last said of the master.
type SentinelStatus struct {
	// Reachable of Known Sentinels answered.
	Reachable, Known int
	// Quorum is how many must agree that the master is down.
	Quorum int
	// Replicas is how many replicas the Sentinels know.
	Replicas int
	// At is when they were asked.
	At time.Time
}
