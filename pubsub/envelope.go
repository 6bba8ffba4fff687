package pubsub

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A typed message travels in an envelope of one line of text before the
// payload:
//
//	m1 <publisher> <number> <unix milliseconds>[ <void>,<void>…]\n
//
// The numbers of one publisher and channel have no holes but for the voids:
// messages that surely were not published. So a subscriber can count what it
// missed.

const envelopeMark = "m1 "

type envelope struct {
	publisher string
	number    uint64
	sent      time.Time
	voids     []uint64
	payload   string
}

func (e envelope) text() string {
	var b strings.Builder
	b.Grow(len(envelopeMark) + len(e.publisher) + 40 + len(e.payload))
	b.WriteString(envelopeMark)
	b.WriteString(e.publisher)
	var num [24]byte
	b.WriteByte(' ')
	b.Write(strconv.AppendUint(num[:0], e.number, 10))
	b.WriteByte(' ')
	b.Write(strconv.AppendInt(num[:0], e.sent.UnixMilli(), 10))
	for i, v := range e.voids {
		if i == 0 {
			b.WriteByte(' ')
		} else {
			b.WriteByte(',')
		}
		b.Write(strconv.AppendUint(num[:0], v, 10))
	}
	b.WriteByte('\n')
	b.WriteString(e.payload)
	return b.String()
}

// parseEnvelope reads one; false for any other text.
func parseEnvelope(s string) (e envelope, ok bool) {
	rest, ok := strings.CutPrefix(s, envelopeMark)
	if !ok {
		return e, false
	}
	line, payload, ok := strings.Cut(rest, "\n")
	if !ok || len(line) > 4096 {
		return e, false
	}
	e.payload = payload
	var number, sent string
	if e.publisher, line, ok = strings.Cut(line, " "); !ok || e.publisher == "" || len(e.publisher) > 64 {
		return e, false
	}
	if number, line, ok = strings.Cut(line, " "); !ok {
		return e, false
	}
	sent, voids, hasVoids := strings.Cut(line, " ")
	n, err := strconv.ParseUint(number, 10, 63)
	ms, err2 := strconv.ParseInt(sent, 10, 64)
	if err != nil || err2 != nil || n == 0 {
		return e, false
	}
	e.number, e.sent = n, time.UnixMilli(ms)
	for hasVoids && voids != "" {
		var one string
		one, voids, _ = strings.Cut(voids, ",")
		v, err := strconv.ParseUint(one, 10, 63)
		if err != nil {
			return e, false
		}
		e.voids = append(e.voids, v)
	}
	return e, true
}

// numbers gives out the numbers of one channel.
type numbers struct {
	mu    sync.Mutex
	last  uint64
	voids []uint64 // not published, and not told of yet
}

const maxVoids = 64

func (n *numbers) next() (number uint64, voids []uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	voids, n.voids = n.voids, nil
	return n.last, voids
}

// void notes numbers that surely were not published.
func (n *numbers) void(list ...uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.voids = append(n.voids, list...)
	if over := len(n.voids) - maxVoids; over > 0 {
		n.voids = n.voids[over:] // those are told as missing: rather too many than too few
	}
}

// numbersOf returns those of a channel.
func (b *Bus) numbersOf(channel string) *numbers {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.numbers[channel]
	if n == nil {
		n = &numbers{}
		b.numbers[channel] = n
	}
	return n
}

const (
	// reorderWithin is how long a message may come after a later one of the
	// same publisher: they leave from many goroutines.
	reorderWithin = 200 * time.Millisecond
	// reorderMost is how many may be waited for; beyond it they are missing.
	reorderMost = 1024
	// maxPublishers bounds those that are remembered of one channel.
	maxPublishers = 4096
)

// sequences counts what is missing of each publisher.
type sequences struct {
	of      map[string]*sequence
	waiting int // holes in all of them
}

type sequence struct {
	next  uint64
	holes []hole
	last  time.Time
}

type hole struct {
	number uint64
	until  time.Time
}

// take notes a message. missing are earlier ones that are given up, fresh is
// false for one that came already.
func (s *sequences) take(channel string, e envelope, now time.Time) (missing int, fresh bool) {
	if s.of == nil {
		s.of = map[string]*sequence{}
	}
	id := channel + "\x00" + e.publisher
	q := s.of[id]
	if q == nil {
		s.makeRoom()
		// What came before is not known.
		q = &sequence{next: e.number}
		s.of[id] = q
	}
	q.last = now
	fresh = true
	switch {
	case e.number == q.next:
		q.next++
	case e.number > q.next:
		if jump := e.number - q.next; jump > reorderMost {
			missing += int(min(jump-reorderMost, 1<<31))
			q.next = e.number - reorderMost
		}
		for n := q.next; n < e.number; n++ {
			q.holes = append(q.holes, hole{n, now.Add(reorderWithin)})
			s.waiting++
		}
		q.next = e.number + 1
	default:
		fresh = s.fill(q, e.number)
	}
	for _, v := range e.voids {
		if v < q.next {
			s.fill(q, v)
		}
	}
	for len(q.holes) > reorderMost {
		q.holes = q.holes[1:]
		s.waiting--
		missing++
	}
	return missing + s.expireOne(q, now), fresh
}

// fill closes a hole, and says whether there was one.
func (s *sequences) fill(q *sequence, number uint64) bool {
	at, ok := slices.BinarySearchFunc(q.holes, number, func(h hole, n uint64) int {
		switch {
		case h.number < n:
			return -1
		case h.number > n:
			return 1
		}
		return 0
	})
	if ok {
		q.holes = slices.Delete(q.holes, at, at+1)
		s.waiting--
	}
	return ok
}

// expire gives up on what is missing for too long.
func (s *sequences) expire(now time.Time) (missing int) {
	for _, q := range s.of {
		missing += s.expireOne(q, now)
	}
	return missing
}

func (s *sequences) expireOne(q *sequence, now time.Time) (missing int) {
	for len(q.holes) > 0 && !now.Before(q.holes[0].until) {
		q.holes = q.holes[1:]
		s.waiting--
		missing++
	}
	if len(q.holes) == 0 {
		q.holes = nil
	}
	return missing
}

// makeRoom forgets the publisher that was silent longest, where there are too
// many.
func (s *sequences) makeRoom() {
	if len(s.of) < maxPublishers {
		return
	}
	var oldest string
	for id, q := range s.of {
		if len(q.holes) == 0 && (oldest == "" || q.last.Before(s.of[oldest].last)) {
			oldest = id
		}
	}
	delete(s.of, oldest)
}
