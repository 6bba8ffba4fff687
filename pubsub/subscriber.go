package pubsub

import (
	"slices"
	"sync"
	"time"
)

// EventKind says what an [Event] tells.
type EventKind uint8

// The kinds of events.
const (
	// EventMessage is a message.
	EventMessage EventKind = iota
	// EventSubscribed: the server has confirmed. What is published from now on
	// will come.
	EventSubscribed
	// EventInterrupted: the connection is lost and being made again. What is
	// published until the next EventGap may not come.
	EventInterrupted
	// EventGap: messages come again; between Since and Until they did not.
	EventGap
	// EventMissed: N typed messages were published and did not come.
	EventMissed
	// EventDropped: N messages were dropped at this place, because this
	// subscriber was too slow.
	EventDropped
)

// String returns the kind in a word.
func (k EventKind) String() string {
	switch k {
	case EventMessage:
		return "message"
	case EventSubscribed:
		return "subscribed"
	case EventInterrupted:
		return "interrupted"
	case EventGap:
		return "gap"
	case EventMissed:
		return "missed"
	case EventDropped:
		return "dropped"
	}
	return "unknown"
}

// Overflow says what becomes of messages that a subscriber is too slow for.
type Overflow struct {
	rule rule
	wait time.Duration
}

type rule uint8

const (
	ruleNewest rule = iota
	ruleOldest
	ruleDisconnect
	ruleBlock
)

var (
	// DropNewest drops what comes while the queue is full. It is the default.
	DropNewest = Overflow{rule: ruleNewest}
	// DropOldest drops what has waited longest.
	DropOldest = Overflow{rule: ruleOldest}
	// Disconnect ends the subscription with [ErrSlow], after what is in the
	// queue.
	Disconnect = Overflow{rule: ruleDisconnect}
)

// Block lets messages wait for a place for up to d, at most as many as the
// queue holds; then they are dropped. Nobody else waits with them.
func Block(d time.Duration) Overflow { return Overflow{rule: ruleBlock, wait: d} }

// item is what waits for a subscriber.
type item struct {
	kind         EventKind
	channel      string
	raw, payload string // as it came, and without its envelope
	env          envelope
	since, until time.Time
	n            int
	arrived      time.Time // of one that waits for a place
}

// subscriber is one local listener: a bounded queue.
type subscriber struct {
	bound    int
	overflow Overflow
	ready    chan struct{} // has a token when there may be something to take

	mu      sync.Mutex
	queue   []item
	waiting []item // beyond the bound, by Block
	dropped int
	over    error // why nothing more comes
	ended   bool
}

func newSubscriber(bound int, overflow Overflow) *subscriber {
	return &subscriber{bound: bound, overflow: overflow, ready: make(chan struct{}, 1)}
}

// push never waits.
func (s *subscriber) push(it item) {
	s.mu.Lock()
	s.put(it)
	s.mu.Unlock()
	s.wake()
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *subscriber) put(it item) {
	if s.ended {
		return
	}
	if it.kind != EventMessage || len(s.queue) < s.bound && len(s.waiting) == 0 {
		s.append(it)
		return
	}
	switch s.overflow.rule {
	case ruleOldest:
		s.dropOldest()
		s.queue = append(s.queue, it)
	case ruleDisconnect:
		s.ended, s.over = true, ErrSlow
	case ruleBlock:
		it.arrived = time.Now()
		s.expire(it.arrived)
		if len(s.waiting) < s.bound {
			s.waiting = append(s.waiting, it)
		} else {
			s.dropped++
		}
	default:
		s.dropped++
	}
}

// append puts an item at the end, after the count of what was dropped there.
func (s *subscriber) append(it item) {
	if len(s.waiting) > 0 { // not before what came earlier
		it.arrived = time.Now().Add(time.Hour)
		s.waiting = append(s.waiting, it)
		return
	}
	s.tellDropped()
	s.queue = append(s.queue, it)
}

func (s *subscriber) tellDropped() {
	if s.dropped > 0 {
		s.queue = append(s.queue, item{kind: EventDropped, n: s.dropped})
		s.dropped = 0
	}
}

// dropOldest leaves a count in the place of the oldest message.
func (s *subscriber) dropOldest() {
	i := slices.IndexFunc(s.queue, func(it item) bool { return it.kind == EventMessage })
	if i < 0 {
		return
	}
	dropped := item{kind: EventDropped, n: 1}
	if i > 0 && s.queue[i-1].kind == EventDropped {
		dropped.n += s.queue[i-1].n
		copy(s.queue[1:i], s.queue[:i-1]) // almost always nothing
		s.queue = s.queue[1:]
		i--
	}
	s.queue[i] = dropped
}

// expire drops what has waited too long for a place.
func (s *subscriber) expire(now time.Time) {
	i := 0
	for i < len(s.waiting) && now.Sub(s.waiting[i].arrived) > s.overflow.wait {
		i++
	}
	s.dropped += i
	s.waiting = s.waiting[i:]
}

// take returns the oldest item. ok is false when there is none now, err why
// there will be none.
func (s *subscriber) take() (it item, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		s.expire(time.Now())
	}
	if len(s.queue) == 0 {
		s.tellDropped()
	}
	if len(s.queue) == 0 {
		return it, false, s.over
	}
	it = s.queue[0]
	s.queue[0] = item{} // let the message go
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	for len(s.waiting) > 0 && len(s.queue) < s.bound {
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.tellDropped()
		s.queue = append(s.queue, next)
	}
	return it, true, nil
}

// end lets nothing more come after what waits.
func (s *subscriber) end(err error) {
	s.mu.Lock()
	if !s.ended {
		s.ended, s.over = true, err
	}
	s.mu.Unlock()
	s.wake()
}
