package health

import (
	"reflect"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

func TestOf_CountsNodesAndLeavesOutOutdatedValues(t *testing.T) {
	replica := func(state string, lag time.Duration) madcrow.ReplicaStatus {
		return madcrow.ReplicaStatus{Address: "10.0.0.9:6379", State: state, Lag: lag}
	}
	server := madcrow.ServerInfo{Role: "master", Replicas: []madcrow.ReplicaStatus{replica("online", time.Second), replica("wait_bgsave", 9*time.Second)}}
	away := madcrow.NodeStatus{Address: "10.0.0.2:6379", Server: server, Err: &madcrow.Error{Op: "connect", Kind: madcrow.KindUnavailable, Outcome: madcrow.OutcomeNotApplied}}
	here := madcrow.NodeStatus{Address: "10.0.0.1:6379", Available: true, Server: server}
	for name, tc := range map[string]struct {
		st                 madcrow.Status
		available, details bool
		want               Redis
	}{
		"standalone": {
			madcrow.Status{Mode: "standalone", Master: "10.0.0.1:6379", Server: server},
			true, false,
			Redis{Role: "master", Replicas: &Replicas{Connected: 2, Online: 1, MaxLagSeconds: 9}},
		},
		"down": {madcrow.Status{Mode: "standalone", Server: server}, false, false, Redis{}},
		"details": {
			madcrow.Status{Mode: "standalone", Master: "10.0.0.1:6379", Server: madcrow.ServerInfo{Name: "valkey", Version: "8.1.1", Role: "master"}},
			true, true,
			Redis{Role: "master", Replicas: &Replicas{}, Master: "10.0.0.1:6379", Server: "valkey 8.1.1"},
		},
		"demoted": {
			madcrow.Status{Mode: "standalone", Server: madcrow.ServerInfo{Role: "slave"}},
			true, false,
			Redis{Role: "replica", Replicas: &Replicas{}},
		},
		"Sentinels only": {
			madcrow.Status{Mode: "sentinel", Sentinels: &madcrow.SentinelStatus{Reachable: 1, Known: 3, Quorum: 2, Replicas: 2}},
			false, true,
			Redis{Sentinels: &Sentinels{1, 3, 2, 2}},
		},
		"cluster with a node away": {
			madcrow.Status{Mode: "cluster", SlotsCovered: 9000, Nodes: []madcrow.NodeStatus{here, away}},
			true, true,
			Redis{
				Replicas: &Replicas{2, 1, 9, []Replica{{"10.0.0.9:6379", "online", 1}, {"10.0.0.9:6379", "wait_bgsave", 9}}},
				Cluster:  &Cluster{9000, 16384, 2, 1, []Node{{"10.0.0.1:6379", true, "", 2}, {"10.0.0.2:6379", false, "madcrow: connect: unavailable", 2}}},
			},
		},
	} {
		if tc.details {
			tc.want.Figures = &Figures{}
		}
		tc.want.Mode, tc.want.State, tc.want.Available = tc.st.Mode, "connecting", tc.available
		if got := stateOf(tc.st, tc.available, tc.details); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, tc.want)
		}
	}
}
