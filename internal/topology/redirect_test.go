package topology

import (
	"errors"
	"testing"
)

// Redis names an IPv6 node without brackets, "MOVED 1 ::1:7000": it was not
// followed.
func TestRedirect_ToIPv6AddressWithoutBrackets(t *testing.T) {
	top, end := openCluster(t, false, "127.0.0.1:1")
	defer end()
	from := top.cluster.ensure("[::1]:7001")
	if rd, ok := top.cluster.follow(from, errors.New("MOVED 1 ::1:7000")); !ok || rd.Node.Addr() != "[::1]:7000" {
		t.Errorf("not followed: %v %+v", ok, rd)
	}
}
