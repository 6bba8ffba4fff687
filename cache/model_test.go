package cache_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// The model is a source of truth with versions, and processes that change it,
// each change followed by Set, Delete, DeleteTag, ExpireTag or Clear. It knows
// for each process which version it must at least see: the one of the last
// change of its own that was acknowledged. For changes of others it measures how
// long an older version was served.

const (
	modelKeys  = 12
	modelTags  = 3
	modelProcs = 3
)

// modelValue is a version of a key. Every seventh version does not exist.
type modelValue struct {
	Key string `json:"k"`
	Ver int64  `json:"v"`
}

func absent(ver int64) bool { return ver%7 == 6 }

// truth is one key of the source.
type truth struct {
	change sync.Mutex   // one changes it at a time
	ver    atomic.Int64 // the version that is read now

	mu    sync.Mutex
	acked []ack
}

// ack is when a change was acknowledged that made all versions before ver old.
type ack struct {
	ver  int64
	at   time.Time
	gone bool // they must not even be served as stale ones
}

// olderSince is when, at the latest, a version had become old, by the changes of
// anybody; zero when it had not.
func (k *truth) olderSince(ver int64, stale bool) (since time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.acked) - 1; i >= 0 && k.acked[i].ver > ver; i-- {
		if a := k.acked[i]; !stale || a.gone {
			since = a.at
		}
	}
	return since
}

func (k *truth) ack(ver int64, gone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.acked) > 256 {
		k.acked = append(k.acked[:0], k.acked[128:]...)
	}
	k.acked = append(k.acked, ack{ver, time.Now(), gone})
}

// floor is the least version that a process may serve.
type floor struct{ fresh, stale atomic.Int64 }

func raise(to *atomic.Int64, ver int64) {
	for old := to.Load(); old < ver && !to.CompareAndSwap(old, ver); {
		old = to.Load()
	}
}

type modelProc struct {
	caches []*cache.Cache[modelValue]
	floors [modelKeys]floor
}

type model struct {
	t      testing.TB
	seed   uint64
	faults bool // operations may fail
	truth  [modelKeys]truth
	procs  [modelProcs]*modelProc

	steps, loads, misses, hits, staleServed, queued atomic.Int64
	worst                                           atomic.Int64 // staleness across processes
	late                                            atomic.Int64 // reads that were stale across processes
	failed                                          atomic.Bool
}

func modelKey(k int) string { return "k" + strconv.Itoa(k) }

func modelTag(k int) string { return "t" + strconv.Itoa(k%modelTags) }

func modelSeed(t testing.TB) uint64 {
	if s := os.Getenv("MADCROW_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return rand.Uint64() //nolint:gosec // a seed
}

// soak is true in `make soak`.
var soak = testkit.Soak

func newModel(t testing.TB, cfg madcrow.Config, faults bool, change func(*cache.Options[modelValue])) *model {
	m := &model{t: t, seed: modelSeed(t), faults: faults}
	for p := range m.procs {
		r := openConfig(t, cfg)
		m.procs[p] = &modelProc{}
		for i := range 2 {
			opt := cache.Options[modelValue]{
				TTL: 60 * time.Millisecond, Jitter: 0.3, StaleTTL: 2 * time.Second, NearCacheBytes: 1 << 20, NegativeTTL: 30 * time.Millisecond,
				Backoff: 2 * time.Millisecond, LeaseTTL: 500 * time.Millisecond, LoadTimeout: 5 * time.Second,
				ReadTimeout: 5 * time.Second, RefreshAhead: 0.6, Tags: []string{"all"},
			}
			if i == 1 {
				opt.NearCacheBytes = 0
				opt.RefreshAhead = 0
				opt.Sliding = true
			}
			if change != nil {
				change(&opt)
			}
			m.procs[p].caches = append(m.procs[p].caches, newCache(t, r, opt))
		}
	}
	return m
}

// run takes steps in all processes at the same time.
func (m *model) run(steps int) {
	m.t.Logf("MADCROW_SEED=%d", m.seed)
	const workers = 4 // of each process
	var wg sync.WaitGroup
	for p := range m.procs {
		for w := range workers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(m.seed, uint64(p*workers+w))) //nolint:gosec // to be repeated
				for !m.failed.Load() && m.steps.Add(1) <= int64(steps) {
					m.step(m.procs[p], rng)
				}
			})
		}
	}
	wg.Wait()
	m.t.Logf("%d steps: %d loads, %d hits, %d misses, %d stale ones on purpose, %d queued; across processes %d reads after the change, the worst by %v",
		steps, m.loads.Load(), m.hits.Load(), m.misses.Load(), m.staleServed.Load(), m.queued.Load(), m.late.Load(), time.Duration(m.worst.Load()))
}

func (m *model) errorf(format string, args ...any) {
	if !m.failed.Swap(true) {
		m.t.Errorf("MADCROW_SEED=%d: "+format, append([]any{m.seed}, args...)...)
	}
}

func (m *model) step(p *modelProc, rng *rand.Rand) {
	c := p.caches[rng.IntN(len(p.caches))]
	k := rng.IntN(modelKeys)
	var opts []cache.CallOption
	if rng.IntN(3) == 0 {
		opts = append(opts, cache.WithTags(modelTag(k)))
	}
	storing := []cache.CallOption{cache.WithTags(modelTag(k))}
	if rng.IntN(4) == 0 {
		storing = append(storing, cache.WithTTL(time.Duration(10+rng.IntN(200))*time.Millisecond))
	}
	n := rng.IntN(100)
	ctx := m.t.Context()
	if n < 78 && rng.IntN(20) == 0 { // a reader who does not wait; a change would take place later
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Microsecond)
		defer cancel()
	}
	switch {
	case n < 30:
		m.get(ctx, p, c, k, opts)
	case n < 62:
		m.load(ctx, p, c, k, rng.Int64(), storing)
	case n < 70:
		m.getMany(ctx, p, c, k, opts)
	case n < 78:
		m.loadMany(ctx, p, c, k, rng.Int64(), storing)
	case n < 84:
		m.change(ctx, p, []int{k}, true, func(vers []int64) error {
			return c.Set(ctx, modelKey(k), modelValue{modelKey(k), vers[0]}, storing...)
		})
	case n < 91:
		m.change(ctx, p, []int{k}, true, func([]int64) error { return c.Delete(ctx, modelKey(k)) })
	case n < 94:
		m.change(ctx, p, ofTag(k), true, func([]int64) error { return c.DeleteTag(ctx, modelTag(k)) })
	case n < 96:
		m.change(ctx, p, ofTag(k), false, func([]int64) error { return c.ExpireTag(ctx, modelTag(k)) })
	case n < 97:
		m.change(ctx, p, everyKey, true, func([]int64) error { return c.DeleteTag(ctx, "all") })
	case n < 98:
		m.change(ctx, p, everyKey, true, func([]int64) error { return c.Clear(ctx) })
	case n < 99:
		values := map[string]modelValue{}
		m.change(ctx, p, ofTag(k), true, func(vers []int64) error {
			for i, k := range ofTag(k) {
				values[modelKey(k)] = modelValue{modelKey(k), vers[i]}
			}
			return c.SetMany(ctx, values, storing...)
		})
	default:
		if _, err := c.Touch(ctx, modelKey(k)); err != nil {
			m.allowed(ctx, "Touch", err)
		}
	}
}

var everyKey = func() (all []int) {
	for k := range modelKeys {
		all = append(all, k)
	}
	return all
}()

func ofTag(k int) (some []int) {
	for i := k % modelTags; i < modelKeys; i += modelTags {
		some = append(some, i)
	}
	return some
}

// change changes some keys of the source, and then the cache. A removal that is
// queued counts for this process as one that was sent. What is set must exist.
func (m *model) change(ctx context.Context, p *modelProc, of []int, gone bool, write func(vers []int64) error) {
	vers := make([]int64, len(of))
	for i, k := range of {
		m.truth[k].change.Lock()
		defer m.truth[k].change.Unlock()
		vers[i] = m.truth[k].ver.Load() + 1
		if absent(vers[i]) {
			if len(of) == 1 || m.t == nil {
				vers[i]++
			}
		}
		m.truth[k].ver.Store(vers[i])
	}
	err := write(vers)
	if err != nil {
		m.allowed(ctx, "change", err)
		if !errors.Is(err, cache.ErrQueued) {
			return
		}
		m.queued.Add(1)
	}
	for i, k := range of {
		raise(&p.floors[k].fresh, vers[i])
		if gone {
			raise(&p.floors[k].stale, vers[i])
		}
		if err == nil {
			m.truth[k].ack(vers[i], gone)
		}
	}
}

// allowed checks an error: without faults there is none but for a caller who
// does not wait.
func (m *model) allowed(ctx context.Context, op string, err error) {
	switch {
	case errors.Is(err, errSource), errors.Is(err, cache.ErrNotFound), errors.Is(err, cache.ErrLoadFailed), ctx.Err() != nil, m.faults:
		return
	}
	m.errorf("%s: %v", op, err)
}

// snap is what a process must at least see now.
type snap struct {
	at           time.Time
	fresh, stale int64
}

func (m *model) snap(p *modelProc, k int) snap {
	return snap{time.Now(), p.floors[k].fresh.Load(), p.floors[k].stale.Load()}
}

// saw checks what was served to a call that began at the snap.
func (m *model) saw(op string, s snap, k int, v modelValue, stale bool) {
	m.hits.Add(1)
	if v.Key != modelKey(k) || v.Ver > m.truth[k].ver.Load() {
		m.errorf("%s of %s: %+v, the source has %d", op, modelKey(k), v, m.truth[k].ver.Load())
	}
	least := s.fresh
	if stale {
		m.staleServed.Add(1)
		least = s.stale
	}
	if v.Ver < least {
		m.errorf("%s of %s (stale: %v): version %d after this process has changed it to %d", op, modelKey(k), stale, v.Ver, least)
	}
	if since := m.truth[k].olderSince(v.Ver, stale); !since.IsZero() && since.Before(s.at) {
		m.late.Add(1)
		raise(&m.worst, int64(s.at.Sub(since)))
	}
}

// sawNone checks an absence that was served.
func (m *model) sawNone(op string, s snap, k int) {
	for ver := s.fresh; ver <= m.truth[k].ver.Load(); ver++ {
		if absent(ver) {
			return
		}
	}
	m.errorf("%s of %s: not found, but all from %d to %d exist", op, modelKey(k), s.fresh, m.truth[k].ver.Load())
}

var errSource = errors.New("the source failed")

// source is the loader of a key.
func (m *model) source(k int, seed int64) func(context.Context, *cache.Load[modelValue]) (modelValue, error) {
	return func(_ context.Context, l *cache.Load[modelValue]) (modelValue, error) {
		m.loads.Add(1)
		rng := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // to be repeated
		nap(rng)
		ver := m.truth[k].ver.Load()
		nap(rng)
		if rng.IntN(50) == 0 {
			return modelValue{}, errSource
		}
		if absent(ver) {
			return modelValue{}, cache.ErrNotFound
		}
		if l != nil {
			etag := strconv.FormatInt(ver, 10)
			if l.Found && l.ETag == etag {
				if l.Previous.Ver != ver {
					m.errorf("the ETag of version %d stands with %d", ver, l.Previous.Ver)
				}
				l.NotModified()
				return modelValue{}, nil
			}
			l.SetETag(etag)
			switch rng.IntN(20) {
			case 0:
				l.Skip()
			case 1:
				l.SetTTL(20 * time.Millisecond)
			}
		}
		return modelValue{modelKey(k), ver}, nil
	}
}

// nap is mostly none, sometimes a millisecond, rarely many.
func nap(rng *rand.Rand) {
	switch n := rng.IntN(40); {
	case n == 0:
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
	case n < 10:
		time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
	}
}

func (m *model) get(ctx context.Context, p *modelProc, c *cache.Cache[modelValue], k int, opts []cache.CallOption) {
	s := m.snap(p, k)
	v, found, err := c.Get(ctx, modelKey(k), opts...)
	switch {
	case err != nil:
		m.allowed(ctx, "Get", err)
	case found:
		m.saw("Get", s, k, v, false)
	default:
		m.misses.Add(1)
	}
}

func (m *model) load(ctx context.Context, p *modelProc, c *cache.Cache[modelValue], k int, seed int64, opts []cache.CallOption) {
	s := m.snap(p, k)
	load := m.source(k, seed)
	var res cache.Result[modelValue]
	var err error
	if seed%3 == 0 {
		res.Value, err = c.GetOrLoad(ctx, modelKey(k), func(ctx context.Context) (modelValue, error) { return load(ctx, nil) }, opts...)
		res.Source = cache.SourceStale // perhaps
	} else {
		res, err = c.GetOrLoadWith(ctx, modelKey(k), load, opts...)
	}
	switch {
	case err == nil:
		m.saw("GetOrLoad", s, k, res.Value, res.Source == cache.SourceStale)
	case errors.Is(err, cache.ErrNotFound):
		m.sawNone("GetOrLoad", s, k)
	default:
		m.allowed(ctx, "GetOrLoad", err)
	}
}

// several are a key and others of its tag.
func several(k int) (ks []int, names []string) {
	for _, i := range ofTag(k) {
		if i == k || (i+k)%2 == 0 {
			ks, names = append(ks, i), append(names, modelKey(i))
		}
	}
	return ks, names
}

func (m *model) getMany(ctx context.Context, p *modelProc, c *cache.Cache[modelValue], k int, opts []cache.CallOption) {
	ks, names := several(k)
	snaps := make([]snap, len(ks))
	for i, k := range ks {
		snaps[i] = m.snap(p, k)
	}
	got, err := c.GetMany(ctx, names, opts...)
	if err != nil {
		m.allowed(ctx, "GetMany", err)
	}
	for i, k := range ks {
		if v, ok := got[names[i]]; ok {
			m.saw("GetMany", snaps[i], k, v, false)
		}
	}
}

func (m *model) loadMany(ctx context.Context, p *modelProc, c *cache.Cache[modelValue], k int, seed int64, opts []cache.CallOption) {
	ks, names := several(k)
	snaps := make([]snap, len(ks))
	for i, k := range ks {
		snaps[i] = m.snap(p, k)
	}
	got, err := c.GetOrLoadMany(ctx, names, func(ctx context.Context, missing []string) (map[string]modelValue, error) {
		out := map[string]modelValue{}
		for i, k := range ks {
			for _, name := range missing {
				if name != names[i] {
					continue
				}
				v, err := m.source(k, seed+int64(k))(ctx, nil)
				switch {
				case err == nil:
					out[name] = v
				case !errors.Is(err, cache.ErrNotFound):
					return out, err
				}
			}
		}
		return out, nil
	}, opts...)
	if err != nil {
		m.allowed(ctx, "GetOrLoadMany", err)
	}
	for i, k := range ks {
		if v, ok := got[names[i]]; ok {
			m.saw("GetOrLoadMany", snaps[i], k, v, true) // perhaps
		} else if err == nil {
			m.sawNone("GetOrLoadMany", snaps[i], k)
		}
	}
}

// TestModel_NoStaleReadAfterAnAcknowledgedChange: never in the process of the
// change, in others until Redis' push has come.
func TestModel_NoStaleReadAfterAnAcknowledgedChange(t *testing.T) {
	steps := 20_000
	if soak {
		steps = 1_000_000
	}
	cfg := ownConfig(t)
	cfg.CommandTimeout = 5 * time.Second
	m := newModel(t, cfg, false, nil)
	late := testkit.MeasureLateness()
	m.run(steps)
	lateBy := late.Stop()
	t.Logf("the scheduler was late by %v at most", lateBy)
	if worst := time.Duration(m.worst.Load()); worst > testkit.Slack(50*time.Millisecond)+2*lateBy {
		t.Errorf("another process served an old value %v after the change", worst)
	}
}
