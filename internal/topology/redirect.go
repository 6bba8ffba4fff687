package topology

import (
	"net"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/node"
)

// Redirect is where a redirected call goes next.
type Redirect struct {
	Node   *node.Node
	Asking bool // for this one call; the slot is still another's
}

// follow reads a redirection. A call that was redirected was not applied.
func (c *cluster) follow(from *node.Node, err error) (rd Redirect, ok bool) {
	text := err.Error()
	if strings.HasPrefix(text, "CLUSTERDOWN") {
		c.wake()
	}
	if !strings.HasPrefix(text, "MOVED ") && !strings.HasPrefix(text, "ASK ") {
		return rd, false
	}
	parts := strings.Fields(text)
	if len(parts) < 3 {
		return rd, false
	}
	slot, bad := strconv.Atoi(parts[1])
	colon := strings.LastIndexByte(parts[2], ':') // IPv6 comes without brackets
	if bad != nil || colon < 0 || slot < 0 || slot >= node.SlotCount {
		return rd, false
	}
	host, port := strings.Trim(parts[2][:colon], "[]"), parts[2][colon+1:]
	if p, err := strconv.Atoi(port); err != nil || p < 1 || p > 65535 {
		c.wake() // the node that it names is lost
		return rd, false
	}
	if host == "" || host == "?" {
		host, _, _ = net.SplitHostPort(from.Addr())
	}
	rd.Node = c.ensure(net.JoinHostPort(host, port))
	if rd.Node == nil {
		return rd, false
	}
	rd.Asking = parts[0] == "ASK"
	if !rd.Asking && c.assignSlot(slot, rd.Node) {
		c.wake()
	}
	return rd, true
}

// Ask puts ASKING before commands for a slot that is being moved.
func (rd Redirect) Ask(b rueidis.Builder, cmds ...rueidis.Completed) []rueidis.Completed {
	if !rd.Asking {
		return cmds
	}
	return append([]rueidis.Completed{b.Asking().Build()}, cmds...)
}
