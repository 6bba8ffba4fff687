package topology

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// refresh asks one node after the other for the map, the healthy ones first,
// until one knows a node for every slot; otherwise it takes the fullest map: a
// node that was reset knows none, and one that was cut off not all. Those that
// are away are asked together, since each may take its whole time.
func (c *cluster) refresh(ctx context.Context, failures int) error {
	if err := c.respClient.Fetch(ctx); err != nil {
		return err
	}
	timeout := min(mapTimeout<<min(failures, 6), c.t.cfg.Node.Conn.ConnectTimeout)
	var best []slotRange
	most := 0
	var failed []error
	for a := range c.queryAll(ctx, timeout) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if a.err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", a.addr, a.err))
			continue
		}
		if n := count(a.ranges); n > most {
			best, most = a.ranges, n
		}
		if most == node.SlotCount {
			break
		}
	}
	if most == 0 {
		if allAre(failed, isNotCluster) || allAre(failed, isDenied) {
			return errors.Join(failed...)
		}
		return errors.Join(fault.ErrUncovered, errors.Join(textsOf(failed, isNotCluster, isDenied)...))
	}
	return c.apply(best, most)
}

func isNotCluster(err error) bool { return errors.Is(err, errNotCluster) }

func isDenied(err error) bool {
	denied := (conn.Denied{})
	return errors.As(err, &denied)
}

// allAre says whether all of some errors are of a kind.
func allAre(errs []error, is func(error) bool) bool {
	return len(errs) > 0 && !slices.ContainsFunc(errs, func(err error) bool { return !is(err) })
}

// textsOf leaves no more than their texts of errors that would end all waiting,
// were they alone: others may mend themselves.
func textsOf(errs []error, kinds ...func(error) bool) []error {
	out := slices.Clone(errs)
	for i, err := range out {
		if slices.ContainsFunc(kinds, func(is func(error) bool) bool { return is(err) }) {
			out[i] = errors.New(err.Error())
		}
	}
	return out
}

// mapError is why there is no map. What all nodes refuse, or a server that is
// no cluster, is not mended by waiting.
func mapError(err error) *fault.Error {
	e := &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: err}
	var denied conn.Denied
	switch {
	case errors.Is(err, errNotCluster):
		return fault.WrongServer("connect", err)
	case errors.As(err, &denied):
		e.Kind, e.Permanent = fault.KindAuth, true
	}
	return e
}

// mapReply is what one node says of the map.
type mapReply struct {
	addr   string
	ranges []slotRange
	err    error
}

// queryAll yields the answers of all nodes that are known.
func (c *cluster) queryAll(ctx context.Context, timeout time.Duration) iter.Seq[mapReply] {
	return func(yield func(mapReply) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		good, rest := c.candidates()
		for _, addr := range good {
			if !yield(c.queryMap(ctx, addr, timeout)) {
				return
			}
		}
		answers := make(chan mapReply, len(rest))
		for _, addr := range rest {
			go func() { answers <- c.queryMap(ctx, addr, timeout) }()
		}
		for range rest {
			if !yield(<-answers) {
				return
			}
		}
	}
}

func (c *cluster) queryMap(ctx context.Context, addr string, timeout time.Duration) mapReply {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := mapReply{addr: addr}
	replies, err := c.respClient.Exchange(ctx, addr, []string{"CLUSTER", "SLOTS"})
	if err != nil {
		a.err = err
	} else if refused, ok := replies[0].(resp.Error); !ok {
		a.ranges, a.err = parseSlots(replies[0], addr)
	} else if a.err = c.respClient.Refused(refused); strings.Contains(string(refused), "cluster support disabled") || fault.IsUnknownCommand(string(refused)) {
		a.err = errNotCluster
	}
	return a
}

// count is how many slots a map serves.
func count(ranges []slotRange) (n int) {
	var served [node.SlotCount]bool
	for _, r := range ranges {
		for s := r.from; s <= r.to; s++ {
			if !served[s] {
				served[s] = true
				n++
			}
		}
	}
	return n
}

// candidates returns the addresses to ask, those of nodes that serve apart.
func (c *cluster) candidates() (good, rest []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.known {
		if n := c.nodes[a]; n != nil && n.Availability.IsUp() {
			good = append(good, a)
		} else {
			rest = append(rest, a)
		}
	}
	for _, list := range [][]string{good, rest} {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	return good, rest
}

// slotRange is one line of CLUSTER SLOTS.
type slotRange struct {
	from, to int
	addrs    []string // the master first
}

// parseSlots reads CLUSTER SLOTS. An entry without an address is as good as
// none: of a replica the others are left, of a master its slots have no node.
func parseSlots(reply any, asked string) ([]slotRange, error) {
	lines, ok := reply.([]any)
	if !ok {
		return nil, resp.ErrProtocol
	}
	askedHost, _, _ := net.SplitHostPort(asked)
	var out []slotRange
	for _, line := range lines {
		parts, _ := line.([]any)
		if len(parts) < 2 {
			return nil, resp.ErrProtocol
		}
		from, ok1 := parts[0].(int64)
		to, ok2 := parts[1].(int64)
		if !ok1 || !ok2 || from < 0 || to >= node.SlotCount || from > to {
			return nil, resp.ErrProtocol
		}
		r := slotRange{from: int(from), to: int(to)}
		for i, p := range parts[2:] {
			if addr := nodeAddress(p, askedHost); addr != "" {
				r.addrs = append(r.addrs, addr)
			} else if i == 0 {
				break
			}
		}
		if len(r.addrs) > 0 {
			out = append(out, r)
		}
	}
	return out, nil
}

// nodeAddress reads a node of CLUSTER SLOTS: its host, its port, its id and
// more about it. It is empty where the one who was asked has lost the address,
// which shows as port 0. A port without a host is on the host that was asked;
// "?" is a node without the host name that the cluster is to be called by.
func nodeAddress(node any, askedHost string) string {
	at, _ := node.([]any)
	if len(at) < 2 {
		return ""
	}
	host, _ := at[0].(string)
	port, _ := at[1].(int64)
	if port < 1 || port > 65535 {
		return ""
	}
	if host == "?" && len(at) > 3 {
		host = fields(at[3])["ip"]
	}
	if host == "" || host == "?" {
		host = askedHost
	}
	return net.JoinHostPort(host, strconv.FormatInt(port, 10))
}
