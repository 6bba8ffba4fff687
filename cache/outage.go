package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// maxQueued bounds the removals that wait for Redis. Beyond it the whole cache
// is cleared when Redis is back.
const maxQueued = 10000

// outage is what must be removed from Redis when it is back. Until then this
// process takes it for removed.
type outage struct {
	r      *madcrow.Redis
	replay func(ctx context.Context, forms []string, tags map[*tagState]string, all bool) error

	pending atomic.Int64 // how many there are; 0 almost always
	mu      sync.Mutex
	forms   map[string]struct{}
	tags    map[*tagState]string
	all     bool
	running bool
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func newOutage(ctx context.Context, r *madcrow.Redis, replay func(context.Context, []string, map[*tagState]string, bool) error) *outage {
	o := &outage{r: r, replay: replay, forms: map[string]struct{}{}, tags: map[*tagState]string{}}
	o.ctx, o.cancel = context.WithCancel(ctx)
	return o
}

// worth says whether a removal that failed is worth another try later.
func (o *outage) worth(err error) bool {
	var e *madcrow.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case madcrow.KindUnavailable, madcrow.KindTimeout, madcrow.KindCanceled, madcrow.KindReadOnly, madcrow.KindLoading, madcrow.KindBusy, madcrow.KindAuth:
		return !errors.Is(err, madcrow.ErrClosed)
	case madcrow.KindOutOfMemory: // a removal needs none, a new value did
		return true
	}
	return false
}

func (o *outage) has(form string) bool {
	if o.pending.Load() == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.forms[form]
	return ok || o.all
}

func (o *outage) hasTag(s *tagState) bool {
	if o.pending.Load() == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.tags[s]
	return ok || o.all
}

func (o *outage) add(form string) {
	o.put(func() { o.forms[form] = struct{}{} })
}

func (o *outage) addTag(s *tagState, how string) {
	o.put(func() {
		if o.tags[s] != tagDelete { // the stronger one stays
			o.tags[s] = how
		}
	})
}

func (o *outage) put(add func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return
	}
	if add(); len(o.forms)+len(o.tags) > maxQueued {
		o.all = true
		clear(o.forms)
	}
	o.count()
	if !o.running {
		o.running = true
		o.done.Go(o.run)
	}
}

func (o *outage) count() {
	n := int64(len(o.forms) + len(o.tags))
	if o.all {
		n++
	}
	o.pending.Store(n)
}

// forget takes a key out that was removed or replaced meanwhile.
func (o *outage) forget(form string) {
	if o.pending.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.forms, form)
	o.count()
}

// run waits until Redis is back and sends what waits, until nothing does.
func (o *outage) run() {
	for {
		if !o.await() {
			return
		}
		o.mu.Lock()
		forms := make([]string, 0, len(o.forms))
		for f := range o.forms {
			forms = append(forms, f)
		}
		tags := make(map[*tagState]string, len(o.tags))
		for s, how := range o.tags {
			tags[s] = how
		}
		all := o.all
		o.mu.Unlock()
		err := o.replay(o.ctx, forms, tags, all)
		o.mu.Lock()
		if err == nil {
			for _, f := range forms {
				delete(o.forms, f)
			}
			for s, how := range tags {
				if o.tags[s] == how {
					delete(o.tags, s)
				}
			}
			o.all = o.all && !all
		}
		o.count()
		if o.pending.Load() == 0 {
			o.running = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
	}
}

// await waits until Redis can be used; false after Close.
func (o *outage) await() bool {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-o.ctx.Done():
		return false
	}
	for st := range o.r.Watch(o.ctx) {
		switch st.State {
		case madcrow.StateUp, madcrow.StateDegraded:
			if !st.ReadOnly {
				return true
			}
		case madcrow.StateClosed:
			return false
		}
	}
	return false
}

func (o *outage) close() {
	o.mu.Lock()
	o.cancel()
	o.mu.Unlock()
	o.done.Wait()
}

// replay removes what could not be removed while Redis was away.
func (c *Cache[T]) replay(ctx context.Context, forms []string, tags map[*tagState]string, all bool) error {
	if all {
		if err := c.tags.invalidate(ctx, c.tags.whole, tagDelete); err != nil {
			return err
		}
	}
	for s, how := range tags {
		if err := c.tags.invalidate(ctx, s, how); err != nil {
			return err
		}
	}
	const batch = 500
	for i := 0; i < len(forms); i += batch {
		part := forms[i:min(i+batch, len(forms))]
		_, err := c.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
			cmds := make([]madcrow.Command, len(part))
			for k, form := range part {
				vk := c.valueKey(form)
				cmds[k] = b.Del().Key(vk, vk+leaseSuffix).Build()
			}
			return cmds
		})
		if err != nil {
			return err
		}
	}
	for _, form := range forms {
		c.near.drop(form)
	}
	return nil
}
