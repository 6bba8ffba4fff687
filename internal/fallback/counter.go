package fallback

import (
	"time"

	"github.com/madcrow-go/madcrow/internal/assoc"
	"github.com/madcrow-go/madcrow/internal/clock"
)

// windowBuckets is how finely a limit is counted in this process.
const windowBuckets = 8

// Counter counts in this process while Redis is unavailable, by the rule of a
// sliding window of buckets: never more than the share in any window.
type Counter struct {
	subjects *assoc.Table[buckets]
	width    int64 // of a bucket, nanoseconds
}

// buckets are counts by age, the newest first; index is that of the newest.
type buckets struct {
	index  int64
	counts [windowBuckets + 1]int64
}

// Count is the decision of a Counter.
type Count struct {
	Allowed                bool
	Remaining              int64
	RetryAfter, ResetAfter time.Duration
}

// NewCounter returns a counter for at most so many subjects. Beyond that the
// least recently used one is dropped.
func NewCounter(subjects int, window time.Duration) *Counter {
	return &Counter{assoc.New[buckets](subjects), max(1, int64(window+windowBuckets-1)/windowBuckets)}
}

// Add counts n of share for a subject if that is free.
func (c *Counter) Add(subject string, n, share int64) Count {
	return c.addAt(subject, n, share, clock.Now())
}

func (c *Counter) addAt(subject string, n, share, now int64) (count Count) {
	set, subject := c.subjects.Lock(subject, true)
	defer set.Unlock()
	slot, _ := set.SlotFor(subject)
	slot.Priority = now
	b := &slot.Value
	b.advance(now / c.width)
	used := b.sum()
	if count.Allowed = used+n <= share; count.Allowed {
		b.counts[0] += n
		used += n
	} else {
		count.RetryAfter = time.Duration(b.freeAt(used+n-share, c.width) - now)
	}
	count.Remaining = max(0, share-used)
	if used > 0 {
		count.ResetAfter = time.Duration(b.freeAt(used, c.width) - now)
	}
	return count
}

// Remove drops the count of a subject.
func (c *Counter) Remove(subject string) { c.subjects.Remove(subject) }

// advance makes index the newest bucket.
func (b *buckets) advance(index int64) {
	by := index - b.index
	if by <= 0 {
		return
	}
	b.index = index
	if by > windowBuckets {
		b.counts = [windowBuckets + 1]int64{}
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
	for age := windowBuckets; age >= 0; age-- {
		if n -= b.counts[age]; n <= 0 {
			return (b.index - int64(age) + windowBuckets + 1) * width
		}
	}
	return 0
}
