package ratelimit

import "time"

// spareBuckets is how finely a limit is counted in this process.
const spareBuckets = 8

// spare counts in this process while Redis cannot be asked: the rule of
// SlidingWindow, never more than the share in any window.
type spare struct {
	t     *table[buckets]
	width int64 // of a bucket, nanoseconds
}

// buckets are counts by age, the newest first; index is that of the newest.
type buckets struct {
	index  int64
	counts [spareBuckets + 1]int64
}

func newSpare(keys int, p plan) *spare {
	window := p.rate.Window
	if p.kind == kindGCRA { // the burst in the time that refills it
		window = time.Duration(float64(window) * float64(p.limit) / float64(p.rate.Limit))
	}
	return &spare{newTable[buckets](keys), max(1, int64(window+spareBuckets-1)/spareBuckets)}
}

// take decides, and fills the decision in.
func (s *spare) take(d *Decision, subject string, n, share int64) {
	s.takeAt(d, subject, n, share, mono())
}

func (s *spare) takeAt(d *Decision, subject string, n, share, now int64) {
	subject = inTable(subject)
	at := s.t.set(subject, true)
	at.Lock()
	defer at.Unlock()
	sl, _ := at.claim(subject)
	sl.worth = now
	b := &sl.value
	b.turn(now / s.width)
	used := b.sum()
	if d.Allowed = used+n <= share; d.Allowed {
		b.counts[0] += n
		used += n
	} else {
		d.RetryAfter = time.Duration(b.frees(used+n-share, s.width) - now)
	}
	d.Remaining = max(0, share-used)
	if used > 0 {
		d.ResetAfter = time.Duration(b.frees(used, s.width) - now)
	}
}

// forget lets a subject begin anew.
func (s *spare) forget(subject string) { s.t.remove(inTable(subject)) }

// turn makes index the newest bucket.
func (b *buckets) turn(index int64) {
	by := index - b.index
	if by <= 0 {
		return
	}
	b.index = index
	if by > spareBuckets {
		b.counts = [spareBuckets + 1]int64{}
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

// frees is when at least n of what was counted is free again.
func (b *buckets) frees(n, width int64) int64 {
	for age := spareBuckets; age >= 0; age-- {
		if n -= b.counts[age]; n <= 0 {
			return (b.index - int64(age) + spareBuckets + 1) * width
		}
	}
	return 0
}
