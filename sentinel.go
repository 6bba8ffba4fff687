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

	mu       sync.Mutex
	addrs    []string        // the one that answered last comes first
	answered map[string]bool // those of addrs that ever did
	master   string          // that was believed last

	seen  atomic.Pointer[SentinelStatus]
	epoch atomic.Int64 // that was believed last; -1 before

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
	f := &finder{asker: a, cfg: cfg, log: cfg.Logger, addrs: slices.Clone(cfg.Sentinel.Addresses), answered: map[string]bool{}}
	f.epoch.Store(-1)
	return f, err
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
// otherwise it waits for all, a frozen one up to SocketTimeout. An older epoch
// is believed only when most Sentinels answered: they were made anew. Several
// run at once: one that was slow does not undo what another learned meanwhile.
func (f *finder) find(ctx context.Context) (string, error) {
	if err := f.fetch(ctx); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoSentinel, err)
	}
	f.mu.Lock()
	addrs, before := slices.Clone(f.addrs), f.epoch.Load()
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Sentinel.SocketTimeout)
	defer cancel()
	answers := make(chan opinion, len(addrs))
	for _, a := range addrs {
		go func() { answers <- f.ask(ctx, a) }()
	}
	var good []opinion
	var unknown, failed error
	all := true
	for range addrs {
		var o opinion
		select {
		case o = <-answers:
		case <-ctx.Done(): // also for a dialer that does not hear it
			o.err = errSilent
		}
		switch {
		case o.err == nil:
			good = append(good, o)
		case errors.Is(o.err, ErrUnknownMaster):
			unknown = o.err
		default:
			failed = errors.Join(failed, o.err)
		}
		if known := f.epoch.Load(); o.err == nil && known >= 0 && o.epoch > known {
			all = false
			break
		}
	}
	if len(good) == 0 {
		if unknown != nil {
			return "", unknown
		}
		return "", fmt.Errorf("%w: %w", ErrNoSentinel, failed)
	}
	return f.learn(good, addrs, all, before)
}

// learn believes the best answer, or says why not. It keeps what was said and
// the Sentinels that were not configured. The epoch was known before asking.
func (f *finder) learn(good []opinion, asked []string, all bool, known int64) (string, error) {
	best := slices.MaxFunc(good, func(a, b opinion) int { return int(a.epoch - b.epoch) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range good {
		if slices.Contains(f.addrs, o.sentinel) {
			f.answered[o.sentinel] = true
		}
	}
	now := f.epoch.Load()
	if now != known && best.epoch != now && best.epoch <= max(now, known) {
		return f.master, nil // another find knows it better
	}
	if best.epoch < now && !f.most(good, asked) {
		return "", errLagging // those who know better are silent
	}
	f.master = best.master
	f.seen.Store(&SentinelStatus{Reachable: len(good), Known: max(len(asked), len(best.peers)+1), Quorum: best.quorum, Replicas: best.replicas, At: time.Now()})
	f.epoch.Store(best.epoch)
	f.replicas.Store(&best.healthy)
	if all {
		f.forget(good, asked)
	}
	for _, p := range best.peers {
		if len(f.addrs) < maxSentinels && !slices.Contains(f.addrs, p) {
			f.addrs = append(f.addrs, p)
		}
	}
	if i := slices.Index(f.addrs, best.sentinel); i > 0 {
		f.addrs = slices.Insert(slices.Delete(f.addrs, i, i+1), 0, best.sentinel)
	}
	return best.master, nil
}

// most says whether most Sentinels answered. One that is silent and was not
// configured counts while an answer names it, unless it never answered: clients
// may not reach what Sentinels call each other.
func (f *finder) most(good []opinion, asked []string) bool {
	silent := 0
	for _, a := range asked {
		if !gave(good, a) && (f.configured(a) || f.answered[a] && names(good, a)) {
			silent++
		}
	}
	return len(good) > silent
}

// forget drops the Sentinels that are gone: they do not answer, nobody names
// them any more, and they were not configured.
func (f *finder) forget(good []opinion, asked []string) {
	f.addrs = slices.DeleteFunc(f.addrs, func(a string) bool {
		gone := slices.Contains(asked, a) && !f.configured(a) && !gave(good, a) && !names(good, a)
		if gone {
			delete(f.answered, a)
		}
		return gone
	})
}

func (f *finder) configured(addr string) bool {
	return slices.Contains(f.cfg.Sentinel.Addresses, addr)
}

// gave says whether one of the answers is from addr.
func gave(good []opinion, addr string) bool {
	return slices.ContainsFunc(good, func(o opinion) bool { return o.sentinel == addr })
}

// names says whether one of the answers names addr.
func names(good []opinion, addr string) bool {
	return slices.ContainsFunc(good, func(o opinion) bool { return slices.Contains(o.peers, addr) })
}

// ask makes one exchange with one Sentinel, within ctx.
func (f *finder) ask(ctx context.Context, addr string) opinion {
	o := opinion{sentinel: addr}
	name := f.cfg.Sentinel.ServiceName
	// The first names a promoted replica a second before the second does.
	replies, err := f.exchange(ctx, addr, []string{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", name},
		[]string{"SENTINEL", "MASTER", name}, []string{"SENTINEL", "SENTINELS", name}, []string{"SENTINEL", "REPLICAS", name})
	if err == nil {
		err = o.read(replies[0], name, f.refused)
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
func (o *opinion) read(reply any, name string, explain func(resp.Error) error) error {
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
	heard := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range heard {
			stop()
		}
	}()
	tick := time.NewTicker(sentinelEvery)
	defer tick.Stop()
	changed()
	for {
		f.hear(ctx, heard, &listeners, changed)
		select {
		case <-tick.C:
			changed()
		case <-ctx.Done():
			return
		}
	}
}

// hear begins to listen to each Sentinel that is new, and ends with those that
// are gone.
func (f *finder) hear(ctx context.Context, heard map[string]context.CancelFunc, listeners *sync.WaitGroup, changed func()) {
	f.mu.Lock()
	addrs := slices.Clone(f.addrs)
	f.mu.Unlock()
	for addr, stop := range heard {
		if !slices.Contains(addrs, addr) {
			stop()
			delete(heard, addr)
		}
	}
	for _, addr := range addrs {
		if heard[addr] == nil {
			life, stop := context.WithCancel(ctx)
			heard[addr] = stop
			listeners.Go(func() { f.follow(life, addr, changed) })
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
	if err := f.fetch(ctx); err != nil {
		return err
	}
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
				return f.refused(refused)
			}
		}
		if list, _ := reply.([]any); len(list) == 3 && list[0] == "message" {
			changed()
		}
	}
	return ctx.Err()
}
