package server

import (
	"time"

	"github.com/madcrow-go/madcrow"
)

// slotsTotal is how many slots every cluster has.
const slotsTotal = 16384

// redisState is what /health tells of Redis. The members for which addresses
// are needed are there with Options.HealthDetails only.
type redisState struct {
	State string `json:"state" enum:"connecting,up,degraded,down,closed"`
	Mode  string `json:"mode" doc:"standalone, sentinel, cluster or embedded"`
	Note  string `json:"note,omitempty"`
	// Role is left out for a cluster, whose nodes are all masters.
	Role      string         `json:"role,omitempty" enum:"master,replica" doc:"Of the node in use; absent with a cluster"`
	Master    string         `json:"master,omitempty" doc:"Its address, with --health-details"`
	Replicas  *replicaCount  `json:"replicas,omitempty" doc:"Those that are connected, of all masters together"`
	Sentinels *sentinelCount `json:"sentinels,omitempty"`
	Cluster   *clusterCount  `json:"cluster,omitempty"`
}

type replicaCount struct {
	Connected     int            `json:"connected"`
	Online        int            `json:"online" doc:"Those in step with their master"`
	MaxLagSeconds int            `json:"max_lag_seconds" doc:"Longest time since a master heard of a replica"`
	Nodes         []replicaState `json:"nodes,omitempty" nullable:"false" doc:"With --health-details"`
}

type replicaState struct {
	Address    string `json:"address"`
	State      string `json:"state"`
	LagSeconds int    `json:"lag_seconds"`
}

type sentinelCount struct {
	Reachable int `json:"reachable" doc:"Those that answered when last asked; one with news is enough"`
	Known     int `json:"known"`
	Quorum    int `json:"quorum" doc:"How many must agree that the master is down"`
	Replicas  int `json:"replicas" doc:"Replicas that they know, those that are away included"`
}

type clusterCount struct {
	SlotsCovered   int         `json:"slots_covered"`
	SlotsTotal     int         `json:"slots_total"`
	Nodes          int         `json:"nodes" doc:"Masters"`
	NodesAvailable int         `json:"nodes_available"`
	Masters        []nodeState `json:"masters,omitempty" nullable:"false" doc:"With --health-details"`
}

type nodeState struct {
	Address   string `json:"address"`
	Available bool   `json:"available"`
	Replicas  int    `json:"replicas"`
}

// topology is what st says, without addresses unless details allows them. What
// was read from a node that is not available now is old, and is left out.
func topology(st madcrow.Status, available, details bool) redisState {
	out := redisState{State: st.State.String(), Mode: st.Mode}
	if s := st.Sentinels; s != nil {
		out.Sentinels = &sentinelCount{Reachable: s.Reachable, Known: s.Known, Quorum: s.Quorum, Replicas: s.Replicas}
	}
	if details {
		out.Master = st.Master
	}
	switch {
	case st.Mode == "cluster":
		out.Cluster, out.Replicas = clusterOf(st, details)
	case available && st.Server.Role != "":
		out.Role = "master"
		if st.Server.Role != "master" {
			out.Role = "replica" // Redis says "slave"
		}
		out.Replicas = &replicaCount{}
		out.Replicas.add(st.Server.Replicas, details)
	}
	return out
}

func clusterOf(st madcrow.Status, details bool) (*clusterCount, *replicaCount) {
	c := &clusterCount{SlotsCovered: st.SlotsCovered, SlotsTotal: slotsTotal, Nodes: len(st.Nodes)}
	replicas := &replicaCount{}
	for _, n := range st.Nodes {
		if n.Available {
			c.NodesAvailable++
			replicas.add(n.Server.Replicas, details)
		}
		if details {
			c.Masters = append(c.Masters, nodeState{n.Address, n.Available, len(n.Server.Replicas)})
		}
	}
	return c, replicas
}

func (c *replicaCount) add(replicas []madcrow.Replica, details bool) {
	for _, r := range replicas {
		lag := int(r.Lag / time.Second)
		c.Connected++
		c.MaxLagSeconds = max(c.MaxLagSeconds, lag)
		if r.State == "online" {
			c.Online++
		}
		if details {
			c.Nodes = append(c.Nodes, replicaState{r.Address, r.State, lag})
		}
	}
}
