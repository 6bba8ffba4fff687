package madcrow

import (
	"errors"
	"testing"
)

// Redis words a redirection to an IPv6 node without brackets: "MOVED 1 ::1:7000".
func TestRegressHA_MovedToIPv6(t *testing.T) {
	r, err := Open(t.Context(), Config{Cluster: Cluster{Enabled: true, Addresses: []string{"127.0.0.1:1"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	from := r.topology.cluster.ensure("[::1]:7001")
	if rd, ok := r.topology.cluster.follow(from, errors.New("MOVED 1 ::1:7000")); !ok || rd.node.Addr() != "[::1]:7000" {
		t.Errorf("not followed: %v %+v", ok, rd)
	}
}
