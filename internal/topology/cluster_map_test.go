package topology

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/resp"
)

// An entry that names no place costs itself: one like it made the whole map
// unreadable. A port without a host is on the host that was asked.
func TestParseSlots_EntryWithoutAddressCostsItselfOnly(t *testing.T) {
	at := func(host, port any) any { return []any{host, port, "id"} }
	line := func(nodes ...any) any { return append([]any{int64(0), int64(1)}, nodes...) }
	for name, tc := range map[string]struct {
		line any
		want string // the addresses, the master first; empty: the slots have no node
	}{
		"no node":                         {line(), ""},
		"master lost":                     {line(at("", int64(0))), ""},
		"master lost, nil":                {line(at(nil, int64(0))), ""},
		"master lost, ?":                  {line(at("?", int64(0))), ""},
		"master without port":             {line(at("10.0.0.1", nil)), ""},
		"master lost, replica well":       {line(at("", int64(0)), at("10.0.0.2", int64(7001))), ""},
		"replica lost":                    {line(at("10.0.0.1", int64(7000)), at("", int64(0))), "10.0.0.1:7000"},
		"one replica lost":                {line(at("10.0.0.1", int64(7000)), at(nil, nil), at("10.0.0.2", int64(7001))), "10.0.0.1:7000 10.0.0.2:7001"},
		"port out of range":               {line(at("10.0.0.1", int64(70000))), ""},
		"empty host":                      {line(at("", int64(7000))), "127.0.0.9:7000"},
		"nil host":                        {line(at(nil, int64(7000))), "127.0.0.9:7000"},
		"no host name, address in extras": {line([]any{"?", int64(7000), "id", []any{"ip", "10.0.0.1"}}), "10.0.0.1:7000"},
		"no host name":                    {line(at("?", int64(7000))), "127.0.0.9:7000"},
		"host name":                       {line(at("a.example", int64(7000))), "a.example:7000"},
		"IPv6":                            {line(at("::1", int64(7000))), "[::1]:7000"},
		"no list for a node":              {line("10.0.0.1"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			healthy := []any{int64(2), int64(9), at("10.9.9.9", int64(7009))}
			out, err := parseSlots([]any{tc.line, healthy}, "127.0.0.9:1")
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if len(out) > 1 {
				got = strings.Join(out[0].addrs, " ")
			}
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if last := out[len(out)-1]; last.from != 2 || !slices.Equal(last.addrs, []string{"10.9.9.9:7009"}) {
				t.Errorf("the healthy line became %+v", last)
			}
		})
	}
	for name, reply := range map[string]any{
		"nil": nil, "number": int64(1), "short line": []any{[]any{int64(0)}},
		"reverse": []any{[]any{int64(5), int64(1), at("h", int64(7000))}},
		"beyond":  []any{[]any{int64(5), int64(16384), at("h", int64(7000))}},
	} {
		if out, err := parseSlots(reply, "127.0.0.1:1"); !errors.Is(err, resp.ErrProtocol) {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
}

// A redirection without a host goes to another port of the same host; one to
// a node whose address is lost goes nowhere, and makes no node.
func TestCluster_RedirectionsToOddAddresses(t *testing.T) {
	top, end := openCluster(t, false, "127.0.0.1:1")
	defer end()
	from := top.cluster.ensure("127.0.0.9:7001")
	for text, want := range map[string]string{
		"MOVED 1 :7000": "127.0.0.9:7000", "ASK 1 :7000": "127.0.0.9:7000", "MOVED 1 ?:7000": "127.0.0.9:7000",
		"MOVED 1 a.example:7000": "a.example:7000", "MOVED 1 [::1]:7000": "[::1]:7000", "MOVED 1 ::1:7000": "[::1]:7000",
		"MOVED 1 :0": "", "MOVED 1 ?:0": "", "ASK 1 :0": "", "MOVED 1 :": "", "MOVED 1 h:70000": "", "MOVED 1": "", "MOVED 99999 h:7000": "",
	} {
		rd, ok := top.cluster.follow(from, errors.New(text))
		if ok != (want != "") || ok && rd.Node.Addr() != want {
			t.Errorf("%q: %v %+v, want %q", text, ok, rd, want)
		}
	}
	top.cluster.mu.Lock()
	defer top.cluster.mu.Unlock()
	if top.cluster.nodes["127.0.0.9:0"] != nil {
		t.Error("there is a node on port 0")
	}
}
