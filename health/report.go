package health

import (
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
)

// slotsTotal is how many slots every cluster has.
const slotsTotal = 16384

// Report is the body of [Monitor.Detail].
type Report struct {
	// Status is "healthy", or "degraded" when a service is unavailable. A degraded
	// process still serves.
	Status string `json:"status"`
	// Services are "healthy" or "unavailable", by name: "redis", and the checks.
	Services map[string]string `json:"services"`
	Redis    Redis             `json:"redis"`
	// Checks say since when and why, by name. Absent without checks.
	Checks map[string]Result `json:"checks,omitempty"`
}

// Redis is the state of one Redis. Members with addresses, versions, figures and
// texts of errors are empty without [Options.Details].
type Redis struct {
	// Available says whether a call made now would be sent.
	Available bool   `json:"available"`
	State     string `json:"state" enum:"connecting,up,degraded,down,closed"`
	// Since is when State began.
	Since time.Time `json:"since"`
	// Kind is why State is not up, in a word or two of [madcrow.Kind].
	Kind  string `json:"kind,omitempty" doc:"Why the state is not up, such as unavailable or authentication; absent when it is"`
	Error string `json:"error,omitempty" doc:"Why the state is not up; only where details are shown"`
	Mode  string `json:"mode" doc:"standalone, sentinel, cluster or embedded"`
	Note  string `json:"note,omitempty"`
	// Role is left out for a cluster, whose nodes are all masters.
	Role      string     `json:"role,omitempty" enum:"master,replica" doc:"Of the node in use; absent with a cluster"`
	Master    string     `json:"master,omitempty" doc:"Its address; only where details are shown"`
	Server    string     `json:"server,omitempty" doc:"Its name and version, such as \"valkey 8.1.1\"; only where details are shown"`
	Figures   *Figures   `json:"figures,omitempty" doc:"Only where details are shown"`
	Replicas  *Replicas  `json:"replicas,omitempty" doc:"Connected replicas of all masters together"`
	Sentinels *Sentinels `json:"sentinels,omitempty"`
	Cluster   *Cluster   `json:"cluster,omitempty"`
}

// Figures are what was last measured of the connection and of the server. Those of
// the server are zero before it was asked for the first time, or when the user may
// not run INFO; in a cluster they are of one master.
type Figures struct {
	RTTMilliseconds  float64 `json:"rtt_ms" doc:"Last round trip of a probe"`
	Connections      int     `json:"connections"`
	MaxConnections   int     `json:"max_connections"`
	UptimeSeconds    int     `json:"uptime_seconds" doc:"Of the server; a small number after a restart, perhaps without its data"`
	ConnectedClients int     `json:"connected_clients"`
	UsedMemory       string  `json:"used_memory,omitempty"`
	// MaxMemoryPolicy is what the server does when it is full. All but "noeviction"
	// may delete sessions, streams and limits.
	MaxMemoryPolicy string `json:"maxmemory_policy,omitempty"`
	EvictedKeys     int64  `json:"evicted_keys" doc:"Keys deleted because the server was full, since it started"`
}

// Replicas are the connected replicas of all masters together.
type Replicas struct {
	Connected     int       `json:"connected"`
	Online        int       `json:"online" doc:"Replicas in sync with their master"`
	MaxLagSeconds int       `json:"max_lag_seconds" doc:"Longest time since a master heard of a replica"`
	Nodes         []Replica `json:"nodes,omitempty" nullable:"false" doc:"Only where details are shown"`
}

// Replica is one connected replica.
type Replica struct {
	Address    string `json:"address"`
	State      string `json:"state"`
	LagSeconds int    `json:"lag_seconds"`
}

// Sentinels are the Sentinels that report the master.
type Sentinels struct {
	Reachable int `json:"reachable" doc:"Sentinels that answered the last query"`
	Known     int `json:"known"`
	Quorum    int `json:"quorum" doc:"How many must agree that the master is down"`
	Replicas  int `json:"replicas" doc:"Replicas that they know, unreachable ones included"`
}

// Cluster is the state of a cluster.
type Cluster struct {
	SlotsCovered   int    `json:"slots_covered"`
	SlotsTotal     int    `json:"slots_total"`
	Nodes          int    `json:"nodes" doc:"Masters"`
	NodesAvailable int    `json:"nodes_available"`
	Masters        []Node `json:"masters,omitempty" nullable:"false" doc:"Only where details are shown"`
}

// Node is one master of a cluster.
type Node struct {
	Address   string `json:"address"`
	Available bool   `json:"available"`
	Error     string `json:"error,omitempty" doc:"Why it is not available"`
	Replicas  int    `json:"replicas"`
}

// stateOf is the state of a Redis. It leaves out what was read from a node that is
// not available now, since it may be outdated.
func stateOf(st madcrow.Status, available, details bool) Redis {
	out := Redis{State: st.State.String(), Since: st.Since.UTC(), Mode: st.Mode, Available: available}
	var e *madcrow.Error
	if errors.As(st.Err, &e) && e.Kind != 0 {
		out.Kind = e.Kind.String()
	}
	switch {
	case st.ReadOnly:
		out.Note = "Redis accepts no writes at the moment"
	case errors.Is(st.Err, madcrow.ErrQuota):
		out.Note = "Redis rejects commands: its quota is used up"
	case errors.Is(st.Err, madcrow.ErrNoScripts):
		out.Note = "Redis runs no scripts: rate limits, sessions and caches fail"
	}
	if s := st.Sentinels; s != nil {
		out.Sentinels = &Sentinels{Reachable: s.Reachable, Known: s.Known, Quorum: s.Quorum, Replicas: s.Replicas}
	}
	if details {
		out.Master = st.Master
		if st.Err != nil {
			out.Error = st.Err.Error()
		}
		out.Figures = figuresOf(st, available)
		if available && st.Server.Version != "" {
			out.Server = st.Server.Name + " " + st.Server.Version
		}
	}
	switch {
	case st.Mode == "cluster":
		out.Cluster, out.Replicas = clusterOf(st, details)
	case available && st.Server.Role != "":
		out.Role = "master"
		if st.Server.Role != "master" {
			out.Role = "replica" // Redis says "slave"
		}
		out.Replicas = &Replicas{}
		out.Replicas.add(st.Server.Replicas, details)
	}
	return out
}

func figuresOf(st madcrow.Status, available bool) *Figures {
	f := &Figures{
		RTTMilliseconds: float64(st.RTT.Round(time.Microsecond)) / float64(time.Millisecond),
		Connections:     st.Connections, MaxConnections: st.MaxConnections,
	}
	if available {
		s := st.Server
		f.UptimeSeconds, f.ConnectedClients, f.UsedMemory = int(s.Uptime/time.Second), s.ConnectedClients, s.UsedMemoryHuman
		f.MaxMemoryPolicy, f.EvictedKeys = s.MaxMemoryPolicy, s.EvictedKeys
	}
	return f
}

func clusterOf(st madcrow.Status, details bool) (*Cluster, *Replicas) {
	c := &Cluster{SlotsCovered: st.SlotsCovered, SlotsTotal: slotsTotal, Nodes: len(st.Nodes)}
	replicas := &Replicas{}
	for _, n := range st.Nodes {
		if n.Available {
			c.NodesAvailable++
			replicas.add(n.Server.Replicas, details)
		}
		if details {
			node := Node{Address: n.Address, Available: n.Available, Replicas: len(n.Server.Replicas)}
			if n.Err != nil {
				node.Error = n.Err.Error()
			}
			c.Masters = append(c.Masters, node)
		}
	}
	return c, replicas
}

func (c *Replicas) add(replicas []madcrow.ReplicaStatus, details bool) {
	for _, r := range replicas {
		lag := int(r.Lag / time.Second)
		c.Connected++
		c.MaxLagSeconds = max(c.MaxLagSeconds, lag)
		if r.State == "online" {
			c.Online++
		}
		if details {
			c.Nodes = append(c.Nodes, Replica{r.Address, r.State, lag})
		}
	}
}
