package topology

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// sentinelReply is what one Sentinel says.
type sentinelReply struct {
	sentinel string
	master   string
	epoch    int64
	quorum   int
	replicas int
	peers    []string
	peerIDs  map[string]string // by address
	healthy  []string          // replicas that are in step
	hidden   error             // why it does not tell the replicas
	identity
	slowest time.Duration // of its steps
	err     error
}

// query makes one exchange with one Sentinel.
func (f *finder) query(ctx context.Context, step time.Duration, addr string) sentinelReply {
	o := sentinelReply{sentinel: addr}
	if err := f.queryOnce(ctx, step, &o); err != nil {
		o.err = f.failed(addr, err)
	}
	return o
}

func (f *finder) queryOnce(ctx context.Context, step time.Duration, o *sentinelReply) error {
	l, err := f.Open(ctx, step, o.sentinel)
	if err != nil {
		return err
	}
	defer l.Close()
	name := f.cfg.ServiceName
	// The first names a promoted replica a second before the second does.
	replies, err := l.Exchange(ctx, []string{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", name},
		[]string{"SENTINEL", "MASTER", name}, []string{"SENTINEL", "SENTINELS", name}, []string{"SENTINEL", "REPLICAS", name},
		[]string{"SENTINEL", "MYID"})
	if err == nil {
		err = o.read(replies[0], name, f.Refused)
	}
	if err != nil && fault.IsUnknownCommand(err.Error()) {
		err = errNotSentinel
	}
	if err != nil {
		return err
	}
	m := fields(replies[1])
	o.epoch, _ = strconv.ParseInt(m["config-epoch"], 10, 64)
	o.quorum, _ = strconv.Atoi(m["quorum"])
	o.replicas, _ = strconv.Atoi(m["num-slaves"])
	everyone := func(map[string]string) bool { return true }
	o.peers, o.peerIDs = addressesIn(replies[2], everyone)
	o.id, _ = replies[4].(string) // an error before 6.2
	if !f.cfg.OwnDialer {
		o.remote = l.RemoteAddr().String() // a dialer's may be that of a tunnel
	}
	list := replies[3]
	if refused, ok := list.(resp.Error); ok && f.cfg.ReadReplicas {
		// Before version 5, or a user who may not.
		slaves, err := l.Exchange(ctx, []string{"SENTINEL", "SLAVES", name})
		if err != nil {
			return err
		}
		if _, ok := slaves[0].(resp.Error); ok {
			o.hidden = f.Refused(refused)
		}
		list = slaves[0]
	}
	o.healthy, _ = addressesIn(list, func(m map[string]string) bool {
		return m["flags"] == "slave" && m["master-link-status"] == "ok"
	})
	o.slowest = l.Slowest
	return nil
}

// read takes the master's address out of a reply.
func (o *sentinelReply) read(reply any, name string, explain func(resp.Error) error) error {
	if refused, ok := reply.(resp.Error); ok {
		return explain(refused)
	}
	if reply == nil {
		return fmt.Errorf("%w: %q (REDIS_SENTINEL_SERVICE_NAME)", ErrUnknownMaster, name)
	}
	at, _ := reply.([]any)
	if len(at) != 2 {
		return resp.ErrProtocol
	}
	host, _ := at[0].(string)
	port, _ := at[1].(string)
	o.master = net.JoinHostPort(host, port)
	return nil
}

// addressesIn reads a list of servers, and their ids; an error, where a user
// may not ask, is none.
func addressesIn(reply any, want func(map[string]string) bool) (out []string, ids map[string]string) {
	list, _ := reply.([]any)
	ids = make(map[string]string, len(list))
	for _, item := range list {
		if m := fields(item); m["ip"] != "" && m["port"] != "" && want(m) {
			addr := net.JoinHostPort(m["ip"], m["port"])
			out = append(out, addr)
			ids[addr] = m["runid"]
		}
	}
	return out, ids
}

// fields reads a reply that is a list of names and values.
func fields(reply any) map[string]string {
	list, _ := reply.([]any)
	m := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		k, _ := list[i].(string)
		v, _ := list[i+1].(string)
		m[k] = v
	}
	return m
}
