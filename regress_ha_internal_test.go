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
	from := r.cluster.ensure("[::1]:7001")
	if h, ok := r.cluster.follow(from, errors.New("MOVED 1 ::1:7000")); !ok || h.node.addr() != "[::1]:7000" {
		t.Errorf("not followed: %v %+v", ok, h)
	}
}

// A map of one node that lost the others is not taken over for good.
func TestRegressHA_OddMaps(t *testing.T) {
	at := func(h any, p any) []any { return []any{h, p, "id"} }
	for name, reply := range map[string]any{
		"nil": nil, "int": int64(1), "empty": []any{}, "short": []any{[]any{int64(0)}},
		"nil host": []any{[]any{int64(0), int64(1), at(nil, int64(7000))}},
		"? host":   []any{[]any{int64(0), int64(1), at("?", int64(7000))}},
		"port 0":   []any{[]any{int64(0), int64(1), at("h", int64(0))}},
		"port neg": []any{[]any{int64(0), int64(1), at("h", int64(-1))}},
		"ipv6":     []any{[]any{int64(0), int64(1), at("::1", int64(7000))}},
		"reverse":  []any{[]any{int64(5), int64(1), at("h", int64(7000))}},
		"no nodes": []any{[]any{int64(0), int64(1)}},
	} {
		out, err := parseSlots(reply, "127.0.0.1:1")
		t.Log(name, out, err)
	}
}
