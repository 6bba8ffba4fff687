package ratelimit

import (
	"sync/atomic"
	"time"
)

// denialLife bounds how long a denial holds without a call to Redis.
const denialLife = time.Second

// denialCache remembers the subjects that are denied, so that an attack costs no
// round trips. A denial counts from before its call was sent, so it never lasts
// longer than in Redis.
type denialCache struct {
	t *assocTable[denial]
	// cleared is when a subject was last removed. The reply to a call that was
	// sent before that may be outdated, and is not remembered.
	cleared atomic.Int64
}

type denial struct {
	cost  int64 // the denied cost: more is denied too
	until int64 // it holds before this
	retry int64 // when the request would be admitted, at the latest
	reset int64
}

func newDenialCache(keys int) *denialCache { return &denialCache{t: newAssocTable[denial](keys)} }

// lookup reports whether a cost is denied at a time, and for how long.
func (d *denialCache) lookup(subject string, cost, now int64) (retry, reset time.Duration, ok bool) {
	subject = tableKey(subject)
	s := d.t.setOf(subject, false)
	if s == nil {
		return 0, 0, false
	}
	s.Lock()
	defer s.Unlock()
	sl := s.lookup(subject)
	if sl == nil || now >= sl.value.until || cost < sl.value.cost {
		return 0, 0, false
	}
	return time.Duration(sl.value.retry - now), time.Duration(sl.value.reset - now), true
}

func (d *denialCache) add(subject string, cost, asked int64, retry, reset time.Duration) {
	subject = tableKey(subject)
	received := mono()
	s := d.t.setOf(subject, true)
	s.Lock()
	defer s.Unlock()
	if asked <= d.cleared.Load() {
		return
	}
	sl, had := s.slotFor(subject)
	until := asked + int64(min(retry, denialLife))
	if had && sl.value.cost < cost && sl.value.until >= until {
		return // the remembered denial covers this one, and lasts longer
	}
	sl.priority = until
	sl.value = denial{cost: cost, until: until, retry: received + int64(retry), reset: received + int64(max(reset, retry))}
}

func (d *denialCache) remove(subject string) {
	for now := mono(); ; {
		if last := d.cleared.Load(); last >= now || d.cleared.CompareAndSwap(last, now) {
			break
		}
	}
	d.t.remove(tableKey(subject))
}
