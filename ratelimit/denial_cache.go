package ratelimit

import (
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/assoc"
	"github.com/madcrow-go/madcrow/internal/clock"
)

// denialLife bounds how long a denial holds without a call to Redis.
const denialLife = time.Second

// denialCache remembers the subjects that are denied, so that an attack costs no
// round trips. A denial counts from before its call was sent, so it never lasts
// longer than in Redis. Times are those of package clock.
type denialCache struct {
	subjects *assoc.Table[denial]
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

func newDenialCache(subjects int) *denialCache {
	return &denialCache{subjects: assoc.New[denial](subjects)}
}

// lookup reports whether a cost is denied at a time, and for how long.
func (d *denialCache) lookup(subject string, cost, now int64) (retry, reset time.Duration, ok bool) {
	set, subject := d.subjects.Lock(subject, false)
	if set == nil {
		return 0, 0, false
	}
	defer set.Unlock()
	slot := set.Lookup(subject)
	if slot == nil || now >= slot.Value.until || cost < slot.Value.cost {
		return 0, 0, false
	}
	return time.Duration(slot.Value.retry - now), time.Duration(slot.Value.reset - now), true
}

// add remembers a denial; asked is when its call was sent.
func (d *denialCache) add(subject string, cost, asked int64, retry, reset time.Duration) {
	received := clock.Now()
	set, subject := d.subjects.Lock(subject, true)
	defer set.Unlock()
	if asked <= d.cleared.Load() {
		return
	}
	slot, existed := set.SlotFor(subject)
	until := asked + int64(min(retry, denialLife))
	if existed && slot.Value.cost < cost && slot.Value.until >= until {
		return // the remembered denial covers this one, and lasts longer
	}
	slot.Priority = until
	slot.Value = denial{cost: cost, until: until, retry: received + int64(retry), reset: received + int64(max(reset, retry))}
}

func (d *denialCache) remove(subject string) {
	for now := clock.Now(); ; {
		if last := d.cleared.Load(); last >= now || d.cleared.CompareAndSwap(last, now) {
			break
		}
	}
	d.subjects.Remove(subject)
}
