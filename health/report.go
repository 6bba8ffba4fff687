package health

import (
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
)

// slotsTotal is how many slots every cluster has.
const slotsTotal = 16384

// Redis is the state of one Redis. Members with addresses are empty without
// Options.Details.
type Redis struct {
	// Available says whether a call made now would be sent.
	Available bool   `json:"available"`
	State     string `json:"state" enum:"connecting,up,degraded,down,closed"`
	Mode      string `json:"mode" doc:"standalone, sentinel, cluster or embedded"`
	Note      string `json:"note,omitempty"`
	// Role is left out for a cluster, whose nodes are all masters.
	Role      string     `json:"role,omitempty" enum:"master,replica" doc:"Of the node in use; absent with a cluster"`
	Master    string     `json:"master,omitempty" doc:"Its address; only where details are shown"`
	Server    string     `json:"server,omitempty" doc:"Its name and version, such as \"valkey 8.1.1\"; only where details are shown"`
	Replicas  *Replicas  `json:"replicas,omitempty" doc:"Connected replicas of all masters together"`
	Sentinels *Sentinels `json:"sentinels,omitempty"`
	Cluster   *Cluster   `json:"cluster,omitempty"`
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
	Replicas  int    `json:"replicas"`
}

// Of returns the state of r, with addresses if details is true. It leaves out
// values that were read from a node that is not available now, since they may be
// outdated.
func Of(r *madcrow.Redis, details bool) Redis { return of(r.Status(), r.Available(), details) }

func of(st madcrow.Status, available, details bool) Redis {
	out := Redis{State: st.State.String(), Mode: st.Mode, Available: available}
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

func clusterOf(st madcrow.Status, details bool) (*Cluster, *Replicas) {
	c := &Cluster{SlotsCovered: st.SlotsCovered, SlotsTotal: slotsTotal, Nodes: len(st.Nodes)}
	replicas := &Replicas{}
	for _, n := range st.Nodes {
		if n.Available {
			c.NodesAvailable++
			replicas.add(n.Server.Replicas, details)
		}
		if details {
			c.Masters = append(c.Masters, Node{n.Address, n.Available, len(n.Server.Replicas)})
		}
	}
	return c, replicas
}

func (c *Replicas) add(replicas []madcrow.Replica, details bool) {
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
