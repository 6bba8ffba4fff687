package ratelimit

import (
	"sync/atomic"
	"time"
)

// denialLife bounds how long a denial is believed without asking.
const denialLife = time.Second

// denials remembers who is denied, so that an attack costs no round trips. A
// denial is counted from before the question was sent, so it never outlasts
// what Redis would say.
type denials struct {
	t *table[denial]
	// cleared is when a subject was last forgotten: what was asked before that
	// may be an answer from before, and is not remembered.
	cleared atomic.Int64
}

type denial struct {
	cost  int64 // what it was asked for: more is denied too
	until int64 // it holds before this
	retry int64 // when it would be admitted, rather later than sooner
	reset int64
}

func newDenials(keys int) *denials { return &denials{t: newTable[denial](keys)} }

// find says whether a cost is denied at a time, and how long still.
func (d *denials) find(subject string, cost, now int64) (retry, reset time.Duration, ok bool) {
	subject = inTable(subject)
	s := d.t.set(subject, false)
	if s == nil {
		return 0, 0, false
	}
	s.Lock()
	defer s.Unlock()
	sl := s.find(subject)
	if sl == nil || now >= sl.value.until || cost < sl.value.cost {
		return 0, 0, false
	}
	return time.Duration(sl.value.retry - now), time.Duration(sl.value.reset - now), true
}

func (d *denials) add(subject string, cost, asked int64, retry, reset time.Duration) {
	subject = inTable(subject)
	told := mono()
	s := d.t.set(subject, true)
	s.Lock()
	defer s.Unlock()
	if asked <= d.cleared.Load() {
		return
	}
	sl, had := s.claim(subject)
	until := asked + int64(min(retry, denialLife))
	if had && sl.value.cost < cost && sl.value.until >= until {
		return // what is known denies this too, and for longer
	}
	sl.worth = until
	sl.value = denial{cost: cost, until: until, retry: told + int64(retry), reset: told + int64(max(reset, retry))}
}

func (d *denials) remove(subject string) {
	for now := mono(); ; {
		if last := d.cleared.Load(); last >= now || d.cleared.CompareAndSwap(last, now) {
			break
		}
	}
	d.t.remove(inTable(subject))
}
