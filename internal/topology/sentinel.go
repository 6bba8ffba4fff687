package topology

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

var errLagging = errors.New("only Sentinels that lag behind answer")

// The root package has these errors under the same names.
var (
	ErrNoSentinel    = errors.New("no Sentinel is reachable")
	ErrUnknownMaster = errors.New("the Sentinels know no such master")
	errNotSentinel   = errors.New("this is no Sentinel: set REDIS_SENTINELS to the Sentinels, or REDIS_USE_SENTINEL=false and REDIS_HOST to the Redis itself")
)

const (
	// sentinelEvery is how often the Sentinels are asked when nothing happens:
	// a message about a failover may be missed.
	sentinelEvery = 5 * time.Second
	// listenAgain is the pause after a Sentinel could not be listened to.
	listenAgain = 500 * time.Millisecond
	// maxSentinels bounds those that are learned from others.
	maxSentinels = 16
	// missesLogged is how often in a row a Sentinel is silent before the log says
	// so: one may be busy for a moment.
	missesLogged = 3
)

// finder finds the master of one service.
type finder struct {
	*conn.RESPClient
	cfg SentinelConfig
	log *slog.Logger

	mu       sync.Mutex
	addrs    []string            // the one that answered last comes first
	answered map[string]bool     // those of addrs that ever did
	ids      map[string]identity // of those of addrs that ever answered
	misses   map[string]int      // how often in a row each was silent
	master   string              // that was believed last

	seen  atomic.Pointer[SentinelState]
	epoch atomic.Int64 // that was believed last; -1 before
	// slowest is the longest step, and first the whole time, of the Sentinel
	// that answered first in the last find that succeeded.
	slowest, first atomic.Int64

	replicas atomic.Pointer[[]string]
	refusals logonce.Reasons // of the list of replicas
}

// identity tells one Sentinel from another, whatever name it is reached by.
type identity struct {
	id     string // its own; empty where it does not tell
	remote string // the address behind the name; empty where it is not known
	lately bool   // it answered when it was last asked
	// several says that the address leads now to one and then to another, as
	// that of a balancer does.
	several bool
}

// is says whether a Sentinel of that address, and of that id if others named
// one, is this one.
func (i identity) is(addr, id string) bool {
	if i.id != "" && id != "" {
		return i.id == id
	}
	return i.remote == addr
}

// key is the same for all addresses of one Sentinel.
func (i identity) key(addr string) string {
	switch {
	case i.id != "":
		return i.id
	case i.remote != "":
		return i.remote
	}
	return addr
}

// SentinelState is what the Sentinels last said of the master.
type SentinelState struct {
	// Reachable of Known Sentinels answered.
	Reachable, Known int
	// Quorum is how many must agree that the master is down.
	Quorum int
	// Replicas is how many replicas the Sentinels know.
	Replicas int
	// At is when they were asked.
	At time.Time
}

// SentinelConfig is what a finder needs to know.
type SentinelConfig struct {
	Client         conn.RESPConfig
	Log            *slog.Logger
	Addresses      []string
	ServiceName    string
	SocketTimeout  time.Duration // of each step
	ConnectTimeout time.Duration // the most that a step gets after failures
	ReadReplicas   bool
	// OwnDialer says that a Dialer of the user connects: the address behind a
	// connection may be that of a tunnel.
	OwnDialer bool
}

func newFinder(cfg SentinelConfig) *finder {
	f := &finder{RESPClient: conn.NewRESPClient(cfg.Client), cfg: cfg, log: cfg.Log, addrs: slices.Clone(cfg.Addresses), answered: map[string]bool{}, ids: map[string]identity{}, misses: map[string]int{}}
	f.epoch.Store(-1)
	return f
}

// stepTimeout is how long each step of an exchange with a Sentinel may take. It
// doubles with each failure, as the time for the map of a cluster does, so that
// Sentinels which are far away are found as well.
func (f *finder) stepTimeout(failures int) time.Duration {
	usual := max(f.cfg.SocketTimeout, 2*time.Duration(f.slowest.Load()))
	return min(usual<<min(failures, 6), max(f.cfg.ConnectTimeout, f.cfg.SocketTimeout))
}

// find asks all Sentinels at once and believes the one with the highest
// configuration epoch: most of them name the old master for up to two seconds
// after a failover, and one that was cut off from the others even longer. It
// returns at once when one knows a newer epoch than was known before;
// otherwise it waits for all, but once one has answered, for a frozen one only
// up to SocketTimeout, or as long again as the first one took. An older epoch
// is believed only when most Sentinels answered: they were set up again. Several
// run at once: one that was slow does not undo what another learned meanwhile.
// Failures is how often in a row it has failed.
func (f *finder) find(ctx context.Context, failures int) (string, error) {
	if err := f.Fetch(ctx); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoSentinel, err)
	}
	f.mu.Lock()
	addrs, before := slices.Clone(f.addrs), f.epoch.Load()
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	step, began := f.stepTimeout(failures), time.Now()
	answers := make(chan sentinelReply, len(addrs))
	for _, a := range addrs {
		go func() { answers <- f.query(ctx, step, a) }()
	}
	var good []sentinelReply
	silent := make(map[string]error, len(addrs)) // those that gave no opinion
	for _, a := range addrs {
		silent[a] = f.failed(a, fault.ErrSilent)
	}
	var enough <-chan time.Time
	all := true
wait:
	for range addrs {
		select {
		case o := <-answers:
			if o.err != nil {
				silent[o.sentinel] = o.err
				continue
			}
			delete(silent, o.sentinel)
			good = append(good, o)
			known := f.epoch.Load()
			if known >= 0 && o.epoch > known {
				all = false
				break wait
			}
			if took := time.Since(began); enough == nil && o.epoch >= known {
				f.slowest.Store(int64(o.slowest))
				f.first.Store(int64(took))
				enough = time.After(max(f.cfg.SocketTimeout, took))
			}
		case <-enough:
			break wait
		case <-ctx.Done():
			break wait
		}
	}
	if len(good) == 0 {
		return "", f.explain(silent)
	}
	return f.learn(good, silent, addrs, all, before)
}

// late is the error of those who have not waited for the first find to end.
func (f *finder) late() error {
	silent := map[string]error{}
	for _, a := range f.cfg.Addresses {
		silent[a] = f.failed(a, fault.ErrSilent)
	}
	return f.explain(silent)
}

// failed explains why a Sentinel gave no opinion.
func (f *finder) failed(addr string, err error) error {
	if errors.Is(err, fault.ErrSilent) {
		return fmt.Errorf("%s: %w (REDIS_SENTINEL_SOCKET_TIMEOUT is %v)", addr, err, f.cfg.SocketTimeout)
	}
	return fmt.Errorf("%s: %w", addr, err)
}

// explain says why no Sentinel gave an opinion, in the same words as long as
// the reason is the same.
func (f *finder) explain(failed map[string]error) error {
	var unknown []string
	var rest []error
	for _, addr := range slices.Sorted(maps.Keys(failed)) {
		if err := failed[addr]; errors.Is(err, ErrUnknownMaster) {
			unknown = append(unknown, addr)
		} else {
			rest = append(rest, err)
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%w: %q (REDIS_SENTINEL_SERVICE_NAME), says %s", ErrUnknownMaster, f.cfg.ServiceName, strings.Join(unknown, ", "))
	}
	if isOther := func(err error) bool { return errors.Is(err, errNotSentinel) }; !allAre(rest, isOther) {
		rest = textsOf(rest, isOther)
	}
	return fmt.Errorf("%w: %w", ErrNoSentinel, errors.Join(rest...))
}

// learn believes the best answer, or says why not. It keeps what was said and
// the Sentinels that were not configured. The epoch was known before asking.
func (f *finder) learn(good []sentinelReply, silent map[string]error, asked []string, all bool, known int64) (string, error) {
	best := slices.MaxFunc(good, func(a, b sentinelReply) int { return int(a.epoch - b.epoch) })
	f.mu.Lock()
	defer f.mu.Unlock()
	reached := f.identify(good)
	if all {
		f.count(good, silent)
	}
	now := f.epoch.Load()
	if now != known && best.epoch != now && best.epoch <= max(now, known) {
		return f.master, nil // another find knows it better
	}
	if best.epoch < now && !f.most(good, reached, asked) {
		return "", errLagging // those who know better are silent
	}
	f.master = best.master
	f.seen.Store(&SentinelState{Reachable: reached, Known: max(f.distinct(), len(best.peers)+1, reached), Quorum: best.quorum, Replicas: best.replicas, At: time.Now()})
	f.epoch.Store(best.epoch)
	f.storeReplicas(good, best.epoch)
	if all {
		f.dropGone(good, asked)
	}
	for _, p := range best.peers {
		if len(f.addrs) < maxSentinels && !slices.Contains(f.addrs, p) && !f.reaches(p, best.peerIDs[p]) {
			f.addrs = append(f.addrs, p)
		}
	}
	if i := slices.Index(f.addrs, best.sentinel); i > 0 {
		f.addrs = slices.Insert(slices.Delete(f.addrs, i, i+1), 0, best.sentinel)
	}
	return best.master, nil
}

// identify notes who answered, and returns how many Sentinels these are. One
// that answers by two addresses is asked by one of them from now on, by both
// if both were configured.
func (f *finder) identify(good []sentinelReply) (reached int) {
	byKey := map[string]string{}
	for _, o := range good {
		if !slices.Contains(f.addrs, o.sentinel) {
			continue // another find has dropped it
		}
		f.answered[o.sentinel] = true
		was := f.ids[o.sentinel]
		o.lately, o.several = true, was.several || was.id != "" && o.id != "" && was.id != o.id
		f.ids[o.sentinel] = o.identity
		key, other := o.key(o.sentinel), o.sentinel
		first, seen := byKey[key]
		if !seen || f.configured(other) {
			byKey[key], other = other, first
		}
		if seen && !f.configured(other) && !f.ids[byKey[key]].several {
			f.drop(other)
		}
	}
	return max(len(byKey), 1)
}

// count notes who was silent, and tells of those that stay so. One that only
// others name may be out of reach for good.
func (f *finder) count(good []sentinelReply, silent map[string]error) {
	for addr, err := range silent {
		if !slices.Contains(f.addrs, addr) {
			continue
		}
		id := f.ids[addr]
		id.lately = false
		f.ids[addr] = id
		if f.misses[addr]++; f.misses[addr] == missesLogged && (f.configured(addr) || f.answered[addr]) {
			f.log.Warn("a Sentinel does not answer", "reason", err)
		}
	}
	for _, o := range good {
		if f.misses[o.sentinel] >= missesLogged {
			f.log.Info("a Sentinel answers again", "address", o.sentinel)
		}
		delete(f.misses, o.sentinel)
	}
}

// distinct is how many Sentinels were configured, as far as that is known.
func (f *finder) distinct() int {
	keys := map[string]struct{}{}
	for _, a := range f.cfg.Addresses {
		keys[f.ids[a].key(a)] = struct{}{}
	}
	return len(keys)
}

// reaches says whether a Sentinel that others name is one that answers by
// another address.
func (f *finder) reaches(addr, id string) bool {
	return slices.ContainsFunc(f.addrs, func(a string) bool {
		known := f.ids[a]
		return known.lately && !known.several && known.is(addr, id)
	})
}

// storeReplicas keeps the list of replicas of those who tell it.
func (f *finder) storeReplicas(good []sentinelReply, epoch int64) {
	var hidden error
	for _, o := range good {
		if o.epoch == epoch && o.hidden == nil {
			f.replicas.Store(&o.healthy)
			if f.refusals.Clear() {
				f.log.Info("the Sentinels name the replicas again")
			}
			return
		}
		hidden = o.hidden
	}
	f.replicas.Store(&[]string{})
	if f.refusals.First(hidden) {
		f.log.Warn("the Sentinels do not name the replicas: all reads go to the master", "reason", hidden)
	}
}

func (f *finder) drop(addr string) {
	f.addrs = slices.DeleteFunc(f.addrs, func(a string) bool { return a == addr })
	delete(f.answered, addr)
	delete(f.ids, addr)
	delete(f.misses, addr)
}

// most says whether most Sentinels answered. One that is silent and was not
// configured counts while an answer names it, unless it never answered: clients
// may not reach what Sentinels call each other.
func (f *finder) most(good []sentinelReply, reached int, asked []string) bool {
	silent := 0
	for _, a := range asked {
		if !repliedFrom(good, a) && (f.configured(a) || f.answered[a] && names(good, a)) {
			silent++
		}
	}
	return reached > silent
}

// dropGone drops the Sentinels that are gone: they do not answer, no one names
// them any more, and they were not configured.
func (f *finder) dropGone(good []sentinelReply, asked []string) {
	for _, a := range asked {
		if !f.configured(a) && !repliedFrom(good, a) && !names(good, a) {
			f.drop(a)
		}
	}
}

func (f *finder) configured(addr string) bool {
	return slices.Contains(f.cfg.Addresses, addr)
}

// repliedFrom says whether one of the answers is from addr.
func repliedFrom(good []sentinelReply, addr string) bool {
	return slices.ContainsFunc(good, func(o sentinelReply) bool { return o.sentinel == addr })
}

// names says whether one of the answers names addr.
func names(good []sentinelReply, addr string) bool {
	return slices.ContainsFunc(good, func(o sentinelReply) bool { return slices.Contains(o.peers, addr) })
}
