package madcrow

import "time"

// State is what is known of the connection, without asking.
type State uint8

// The states of a [Redis].
const (
	// StateConnecting: no verdict yet.
	StateConnecting State = iota
	// StateUp: every node serves.
	StateUp
	// StateDegraded: usable, with a restriction that Status names: the node
	// takes no writes, or the Redis is an embedded one.
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
	// Address is the configured one, without credentials.
	Address string
	// Err is why the state is not up; nil when it is.
	Err error
	// ReadOnly is true when the node takes no writes.
	ReadOnly bool
	// RTT is the last measured round trip of a probe.
	RTT time.Duration
	// Connections that are open now, and their bound.
	Connections, MaxConnections int
	// Server is what Redis last said of itself; zero before that, or when the
	// user may not run INFO.
	Server ServerInfo
}

// ServerInfo is a part of Redis' INFO.
type ServerInfo struct {
	Version          string
	ConnectedClients int
	UsedMemoryHuman  string
	Role             string
	// At is when it was read.
	At time.Time
}
