package pubsub

import (
	"container/list"
	"slices"
	"strings"
	"time"
)

const (
	// reorderWithin is how long a message may come after a later one of the
	// same publisher before it counts as missed: messages leave from many
	// goroutines, and one may wait for its connection as long as a command may
	// take.
	reorderWithin = time.Second
	// maxSpans bounds the spans that are remembered of one publisher.
	maxSpans = 256
	// maxPublishers bounds the publishers that a feed remembers, counted for
	// each channel.
	maxPublishers = 4096
)

// sequences counts the missing messages of each publisher and channel.
type sequences struct {
	bySource  map[source]*list.Element
	order     list.List // of *sequence, the one with the latest message in front
	openHoles int       // in all sequences
}

type source struct{ channel, publisher string }

type sequence struct {
	source
	next    uint64
	holes   []hole // may still come
	givenUp []span // given up, or before the first: accepted when they come, not waited for
}

type hole struct {
	span
	until time.Time
}

// record notes a message. missing counts earlier ones that are given up; fresh is
// false for a message that came already. It returns the publisher's name in a
// string of its own, so that no message is kept in memory for it.
func (s *sequences) record(channel string, e envelope, now time.Time) (publisher string, missing int, fresh bool) {
	q, forgotten := s.sequence(channel, e)
	missing = forgotten
	switch {
	case e.number >= q.next:
		if e.number > q.next {
			q.holes = append(q.holes, hole{span{q.next, e.number - 1}, now.Add(reorderWithin)})
			s.openHoles++
		}
		q.next = e.number + 1
		fresh = true
	default:
		fresh = s.fill(q, span{e.number, e.number})
	}
	for _, v := range e.skipped {
		if v.to < e.number { // a number is given out before it is skipped
			s.fill(q, v)
		}
	}
	missing += s.expireOf(q, now)
	for len(q.holes) > maxSpans {
		missing += s.giveUp(q)
	}
	return q.publisher, missing, fresh
}

func (s *sequences) sequence(channel string, e envelope) (q *sequence, forgotten int) {
	if s.bySource == nil {
		s.bySource = map[source]*list.Element{}
	}
	if el := s.bySource[source{channel, e.publisher}]; el != nil {
		s.order.MoveToFront(el)
		return el.Value.(*sequence), 0
	}
	if s.order.Len() >= maxPublishers {
		oldest := s.order.Remove(s.order.Back()).(*sequence)
		delete(s.bySource, oldest.source)
		for len(oldest.holes) > 0 {
			forgotten += s.giveUp(oldest)
		}
	}
	q = &sequence{source: source{strings.Clone(channel), strings.Clone(e.publisher)}, next: e.number}
	if e.number > 1 { // earlier messages are unknown; some may be on their way
		q.givenUp = []span{{1, e.number - 1}}
	}
	s.bySource[q.source] = s.order.PushFront(q)
	return q, forgotten
}

// fill removes numbers from those that have not come, and says whether there were
// any.
func (s *sequences) fill(q *sequence, v span) bool {
	before := len(q.holes)
	var waited, welcome bool
	q.holes, waited = subtract(q.holes, v, func(h hole) span { return h.span }, func(h hole, p span) hole { return hole{p, h.until} })
	s.openHoles += len(q.holes) - before
	q.givenUp, welcome = subtract(q.givenUp, v, func(p span) span { return p }, func(_ span, p span) span { return p })
	if over := len(q.givenUp) - maxSpans; over > 0 {
		q.givenUp = q.givenUp[over:]
	}
	return waited || welcome
}

// subtract removes the numbers of v from a sorted list.
func subtract[E any](spans []E, v span, of func(E) span, with func(E, span) E) (left []E, any bool) {
	i, _ := slices.BinarySearchFunc(spans, v.from, func(e E, from uint64) int { return compare(of(e).to, from) })
	end := i
	var rest []E
	for ; end < len(spans) && of(spans[end]).from <= v.to; end++ {
		if p := of(spans[end]); p.from < v.from {
			rest = append(rest, with(spans[end], span{p.from, v.from - 1}))
		}
		if p := of(spans[end]); p.to > v.to {
			rest = append(rest, with(spans[end], span{v.to + 1, p.to}))
		}
	}
	if end == i {
		return spans, false
	}
	return slices.Replace(spans, i, end, rest...), true
}

// expire gives up the numbers that have been missing for too long.
func (s *sequences) expire(now time.Time) (missing int) {
	for el := s.order.Front(); el != nil; el = el.Next() {
		missing += s.expireOf(el.Value.(*sequence), now)
	}
	return missing
}

func (s *sequences) expireOf(q *sequence, now time.Time) (missing int) {
	for len(q.holes) > 0 && !now.Before(q.holes[0].until) {
		missing += s.giveUp(q)
	}
	return missing
}

// giveUp waits no longer for the oldest hole.
func (s *sequences) giveUp(q *sequence) (missing int) {
	lost := q.holes[0].span
	if q.holes = q.holes[1:]; len(q.holes) == 0 {
		q.holes = nil
	}
	s.openHoles--
	// They may come all the same; then they do not count as seen before.
	if q.givenUp = append(q.givenUp, lost); len(q.givenUp) > maxSpans {
		q.givenUp = q.givenUp[1:]
	}
	return lost.size()
}
