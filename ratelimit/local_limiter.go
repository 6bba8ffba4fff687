package ratelimit

import "time"

// localBuckets is how finely a limit is counted in this process.
const localBuckets = 8

// localLimiter counts in this process while Redis is unavailable, by the rule of
// SlidingWindow: never more than the share in any window.
type localLimiter struct {
	t     *assocTable[buckets]
	width int64 // of a bucket, nanoseconds
}

// buckets are counts by age, the newest first; index is that of the newest.
type buckets struct {
	index  int64
	counts [localBuckets + 1]int64
}

func newLocalLimiter(keys int, p plan) *localLimiter {
	window := p.rate.Window
	if p.kind == kindGCRA { // the burst in the time that refills it
		window = time.Duration(float64(window) * float64(p.limit) / float64(p.rate.Limit))
	}
	return &localLimiter{newAssocTable[buckets](keys), max(1, int64(window+localBuckets-1)/localBuckets)}
}

// decide counts n if it is free, and fills the decision in.
func (s *localLimiter) decide(d *Decision, subject string, n, share int64) {
	s.decideAt(d, subject, n, share, mono())
}

func (s *localLimiter) decideAt(d *Decision, subject string, n, share, now int64) {
	subject = tableKey(subject)
	at := s.t.setOf(subject, true)
	at.Lock()
	defer at.Unlock()
	sl, _ := at.slotFor(subject)
	sl.priority = now
	b := &sl.value
	b.advance(now / s.width)
	used := b.sum()
	if d.Allowed = used+n <= share; d.Allowed {
		b.counts[0] += n
		used += n
	} else {
		d.RetryAfter = time.Duration(b.freeAt(used+n-share, s.width) - now)
	}
	d.Remaining = max(0, share-used)
	if used > 0 {
		d.ResetAfter = time.Duration(b.freeAt(used, s.width) - now)
	}
}

// remove drops the count of a subject.
func (s *localLimiter) remove(subject string) { s.t.remove(tableKey(subject)) }

// advance makes index the newest bucket.
func (b *buckets) advance(index int64) {
	by := index - b.index
	if by <= 0 {
		return
	}
	b.index = index
	if by > localBuckets {
		b.counts = [localBuckets + 1]int64{}
		return
	}
	copy(b.counts[by:], b.counts[:])
	clear(b.counts[:by])
}

func (b *buckets) sum() (n int64) {
	for _, c := range b.counts {
		n += c
	}
	return n
}

// freeAt is when at least n of the counted requests are free again.
func (b *buckets) freeAt(n, width int64) int64 {
	for age := localBuckets; age >= 0; age-- {
		if n -= b.counts[age]; n <= 0 {
			return (b.index - int64(age) + localBuckets + 1) * width
		}
	}
	return 0
}
