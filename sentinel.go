package madcrow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
)

// Errors of looking for the master. Both are also ErrUnavailable.
var (
	// ErrNoSentinel: none of the Sentinels answered.
	ErrNoSentinel = errors.New("no Sentinel is reachable")
	// ErrUnknownMaster: Sentinels answered, but know no master of that name.
	ErrUnknownMaster = errors.New("the Sentinels know no such master")
)

const (
	// sentinelEvery is how often the Sentinels are asked when nothing happens:
	// a message about a failover may be missed.
	sentinelEvery = 5 * time.Second
	// maxSentinels bounds those that are learned from others.
	maxSentinels = 16
)

// finder finds the master of one service.
type finder struct {
	*asker
	cfg Config
	log *slog.Logger

	mu    sync.Mutex
	addrs []string // the one that answered last comes first

	seen  atomic.Pointer[SentinelStatus]
	epoch atomic.Int64 // the highest that was believed

	replicas atomic.Pointer[[]string]
}

// SentinelStatus is what the Sentinels last said of the master.
type SentinelStatus struct {
	// Reachable of Known Sentinels answered.
	Reachable, Known int
	// Quorum is how many must agree that the master is down.
	Quorum int
	// Replicas is how many replicas the Sentinels know.
	Replicas int
	// At is when they were asked.
	At time.Time
}

func newFinder(cfg Config) (*finder, error) {
	a, err := askerOf(cfg, true)
	return &finder{asker: a, cfg: cfg, log: cfg.Logger, addrs: slices.Clone(cfg.Sentinel.Addresses)}, err
}

// opinion is what one Sentinel says.
type opinion struct {
	sentinel string
	master   string
	epoch    int64
	quorum   int
	replicas int
	peers    []string
	healthy  []string // replicas that are in step
	err      error
}

// find asks all Sentinels at once and believes the one with the highest
// configuration epoch: most of them name the old master for up to two seconds
// after a failover, and one that was cut off from the others even longer. It
// returns at once when one knows a newer epoch than was known before;
// otherwise it waits for all, a frozen one up to SocketTimeout.
func (f *finder) find(ctx context.Context) (string, error) {
	f.mu.Lock()
	addrs := slices.Clone(f.addrs)
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Sentinel.SocketTimeout)
	defer cancel()
	answers := make(chan opinion, len(addrs))
	for _, a := range addrs {
		go func() { answers <- f.ask(ctx, a) }()
	}
	var good []opinion
	var unknown, failed error
	for range addrs {
		o := <-answers
		switch {
		case o.err == nil:
			good = append(good, o)
		case errors.Is(o.err, ErrUnknownMaster):
			unknown = o.err
		default:
			failed = errors.Join(failed, o.err)
		}
		if o.err == nil && o.epoch > f.epoch.Load() {
			break
		}
	}
	if len(good) == 0 {
		if unknown != nil {
			return "", unknown
		}
		return "", fmt.Errorf("%w: %w", ErrNoSentinel, failed)
	}
	best := slices.MaxFunc(good, func(a, b opinion) int { return int(a.epoch - b.epoch) })
	f.learn(best, good, addrs)
	return best.master, nil
}

// learn keeps what was said, and the Sentinels that were not configured.
func (f *finder) learn(best opinion, good []opinion, asked []string) {
	f.seen.Store(&SentinelStatus{Reachable: len(good), Known: max(len(asked), len(best.peers)+1), Quorum: best.quorum, Replicas: best.replicas, At: time.Now()})
	f.epoch.Store(best.epoch)
	f.replicas.Store(&best.healthy)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range best.peers {
		if len(f.addrs) < maxSentinels && !slices.Contains(f.addrs, p) {
			f.addrs = append(f.addrs, p)
		}
	}
	if i := slices.Index(f.addrs, best.sentinel); i > 0 {
		f.addrs = slices.Insert(slices.Delete(f.addrs, i, i+1), 0, best.sentinel)
	}
}

// ask makes one exchange with one Sentinel, within ctx.
func (f *finder) ask(ctx context.Context, addr string) opinion {
	o := opinion{sentinel: addr}
	name := f.cfg.Sentinel.ServiceName
	// The first names a promoted replica a second before the second does.
	replies, err := f.exchange(ctx, addr, []string{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", name},
		[]string{"SENTINEL", "MASTER", name}, []string{"SENTINEL", "SENTINELS", name}, []string{"SENTINEL", "REPLICAS", name})
	if err == nil {
		err = o.read(replies[0], name)
	}
	if err != nil {
		o.err = fmt.Errorf("%s: %w", addr, err)
		return o
	}
	m := fields(replies[1])
	o.epoch, _ = strconv.ParseInt(m["config-epoch"], 10, 64)
	o.quorum, _ = strconv.Atoi(m["quorum"])
	o.replicas, _ = strconv.Atoi(m["num-slaves"])
	o.peers = addressesIn(replies[2], func(map[string]string) bool { return true })
	o.healthy = addressesIn(replies[3], func(m map[string]string) bool {
		return m["flags"] == "slave" && m["master-link-status"] == "ok"
	})
	return o
}

// read takes the master's address out of a reply.
func (o *opinion) read(reply any, name string) error {
	if refused, ok := reply.(resp.Error); ok {
		return refused
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

// addressesIn reads a list of servers; an error, where a user may not ask, is
// none.
func addressesIn(reply any, want func(map[string]string) bool) (out []string) {
	list, _ := reply.([]any)
	for _, item := range list {
		if m := fields(item); m["ip"] != "" && m["port"] != "" && want(m) {
			out = append(out, net.JoinHostPort(m["ip"], m["port"]))
		}
	}
	return out
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

// watch calls changed after each message about a failover, and from time to
// time, until ctx ends. It listens to every Sentinel: the one that leads a
// failover tells first, another may be frozen.
func (f *finder) watch(ctx context.Context, changed func()) {
	var listeners sync.WaitGroup
	defer listeners.Wait()
	heard := map[string]bool{}
	tick := time.NewTicker(sentinelEvery)
	defer tick.Stop()
	changed()
	for {
		f.mu.Lock()
		addrs := slices.Clone(f.addrs)
		f.mu.Unlock()
		for _, addr := range addrs {
			if !heard[addr] {
				heard[addr] = true
				listeners.Go(func() { f.follow(ctx, addr, changed) })
			}
		}
		select {
		case <-tick.C:
			changed()
		case <-ctx.Done():
			return
		}
	}
}

// follow listens to one Sentinel, again and again.
func (f *finder) follow(ctx context.Context, addr string, changed func()) {
	for ctx.Err() == nil {
		if err := f.listen(ctx, addr, changed); err != nil && ctx.Err() == nil {
			f.log.Debug("a Sentinel is not listened to", "address", addr, "reason", err)
		}
		select {
		case <-time.After(probeEvery):
		case <-ctx.Done():
		}
	}
}

// listen subscribes to one Sentinel. A Sentinel that stays silent for longer
// than sentinelEvery is asked for a sign of life.
func (f *finder) listen(ctx context.Context, addr string, changed func()) error {
	start, cancel := context.WithTimeout(ctx, f.cfg.Sentinel.SocketTimeout)
	defer cancel()
	c, r, err := f.open(start, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	_ = c.SetDeadline(time.Time{})
	// Either event will do, where a user may hear only one.
	if err := resp.Write(c, []string{"SUBSCRIBE", "+switch-master"}, []string{"SUBSCRIBE", "+promoted-slave"}); err != nil {
		return err
	}
	denied := 0
	for ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(sentinelEvery))
		reply, err := resp.Read(r)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && r.Buffered() == 0 {
			if err = resp.Write(c, []string{"PING"}); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(f.cfg.Sentinel.SocketTimeout))
			reply, err = resp.Read(r)
		}
		if err != nil {
			return err
		}
		if refused, ok := reply.(resp.Error); ok {
			if denied++; denied > 1 {
				return refused
			}
		}
		if list, _ := reply.([]any); len(list) == 3 && list[0] == "message" {
			changed()
		}
	}
	return ctx.Err()
}
