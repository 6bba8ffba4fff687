package pubsub

import (
	"sync"
	"sync/atomic"
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
	case EventHistoryLost:
		return "history-lost"
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
	message      *message // of an EventMessage; all who listen share it
	n            int
	since, until time.Time
}

// message is one that came.
type message struct {
	channel      string
	raw, payload string // as it came, and without its envelope
	env          envelope

	shared  bool // several listen; the rest is what it is for them, see decode
	once    sync.Once
	plain   bool
	decoded any
	failed  error
	sum     atomic.Pointer[[32]byte] // see digest
}

// subscriber is one local listener: a bounded queue of messages, with what else
// is to be told at its place between them. What else there is, is never dropped;
// where it becomes very much, it is told in few words.
type subscriber struct {
	maxMessages int
	maxBytes    int // bytes of queue, and of waiting; 0 is no bound
	overflow    Overflow
	plain       bool          // it wants all texts as they come, and hears of no numbers
	reserved    bool          // as a listener to a pattern, it wants reserved channels too
	ready       chan struct{} // has a token when there may be something to take
	dropped     func(n int)   // is told of each loss; nil: nobody asks

	mu           sync.Mutex
	beforeQueue  ring        // of before the queue: what became of dropped messages
	queue        ring        // at most bound messages, and notes
	messages     int         // in queue
	bytes        int         // of the messages in queue
	waiting      ring        // beyond the bound, by Block
	waitingBytes int         // bytes of the messages in waiting
	arrived      []time.Time // of the messages in waiting
	endErr       error       // why nothing more comes
	ended        bool
}

func newSubscriber(bound int, overflow Overflow) *subscriber {
	return &subscriber{maxMessages: bound, overflow: overflow, ready: make(chan struct{}, 1)}
}

// push never waits.
func (s *subscriber) push(it item) {
	s.mu.Lock()
	if !s.ended {
		s.add(it)
	}
	s.mu.Unlock()
	s.wake()
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *subscriber) add(it item) {
	if s.waiting.n > 0 {
		s.expire(time.Now())
	}
	switch {
	case it.kind != EventMessage:
		s.newest().note(it)
	case s.hasRoom(it) && s.waiting.n == 0:
		s.enqueue(it)
	case s.overflow.rule == ruleOldest:
		for s.dropOldest(); !s.hasRoom(it); {
			s.dropOldest()
		}
		s.enqueue(it)
	case s.overflow.rule == ruleDisconnect:
		s.ended, s.endErr = true, ErrSlow
	case s.overflow.rule == ruleBlock && len(s.arrived) < s.maxMessages && (len(s.arrived) == 0 || s.maxBytes == 0 || s.waitingBytes+it.size() <= s.maxBytes):
		s.waiting.push(it)
		s.waitingBytes += it.size()
		s.arrived = append(s.arrived, time.Now())
	default:
		s.noteDrop(s.newest())
	}
}

// size is how many bytes of memory a message keeps, as it came.
func (it item) size() int {
	if it.message == nil {
		return 0
	}
	return len(it.message.raw)
}

// hasRoom says whether a message may join the queue. One may, whatever its size.
func (s *subscriber) hasRoom(it item) bool {
	return s.messages < s.maxMessages && (s.messages == 0 || s.maxBytes == 0 || s.bytes+it.size() <= s.maxBytes)
}

func (s *subscriber) enqueue(it item) {
	s.queue.push(it)
	s.messages++
	s.bytes += it.size()
}

// dequeued counts a message out.
func (s *subscriber) countOut(it item) {
	s.messages--
	s.bytes -= it.size()
}

// last is where the newest items are.
func (s *subscriber) newest() *ring {
	if s.waiting.n > 0 {
		return &s.waiting
	}
	return &s.queue
}

// lose notes the loss of one message at the end of r.
func (s *subscriber) noteDrop(r *ring) {
	r.note(item{kind: EventDropped, n: 1})
	if s.dropped != nil {
		s.dropped(1)
	}
}

// dropOldest makes a note of the oldest message. There is one, since the queue
// is full.
func (s *subscriber) dropOldest() {
	for {
		it := s.queue.pop()
		if it.kind == EventMessage {
			s.countOut(it)
			s.noteDrop(&s.beforeQueue)
			return
		}
		s.beforeQueue.note(it)
	}
}

// expire drops what has waited too long for a place, so that the first one that
// waits, if any does, is a message that may still get one.
func (s *subscriber) expire(now time.Time) {
	for s.waiting.n > 0 {
		it := s.waiting.at(0)
		switch {
		case it.kind != EventMessage:
			s.queue.note(*it)
		case now.Sub(s.arrived[0]) > s.overflow.wait:
			s.arrived = s.arrived[1:]
			s.waitingBytes -= it.size()
			s.noteDrop(&s.queue)
		default:
			return
		}
		s.waiting.pop()
	}
}

// take returns the oldest item. ok is false when there is none now, err why
// there will be none.
func (s *subscriber) next() (it item, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting.n > 0 {
		s.expire(time.Now())
	}
	switch {
	case s.beforeQueue.n > 0:
		return s.beforeQueue.pop(), true, nil
	case s.queue.n == 0:
		return it, false, s.endErr
	}
	it = s.queue.pop()
	if it.kind != EventMessage {
		return it, true, nil
	}
	s.countOut(it)
	for s.waiting.n > 0 && (s.waiting.at(0).kind != EventMessage || s.hasRoom(*s.waiting.at(0))) {
		next := s.waiting.pop()
		if next.kind != EventMessage {
			s.queue.note(next)
			continue
		}
		s.arrived = s.arrived[1:]
		s.waitingBytes -= next.size()
		s.enqueue(next)
	}
	return it, true, nil
}

// end lets nothing more come after what waits.
func (s *subscriber) end(err error) {
	s.mu.Lock()
	if !s.ended {
		s.ended, s.endErr = true, err
	}
	s.mu.Unlock()
	s.wake()
}

// ring is a queue of items. The zero value is empty and holds no memory.
type ring struct {
	buf   []item // its length is a power of two, or 0
	first int
	n     int
}

// at returns the i-th item.
func (r *ring) at(i int) *item { return &r.buf[(r.first+i)&(len(r.buf)-1)] }

func (r *ring) push(it item) {
	if r.n == len(r.buf) {
		buf := make([]item, max(8, 2*len(r.buf)))
		for i := range r.n {
			buf[i] = *r.at(i)
		}
		r.buf, r.first = buf, 0
	}
	r.n++
	*r.at(r.n - 1) = it
}

func (r *ring) pop() item {
	it := *r.at(0)
	*r.at(0) = item{} // let the message go
	r.first = (r.first + 1) & (len(r.buf) - 1)
	if r.n--; r.n == 0 && len(r.buf) > 64 {
		r.buf, r.first = nil, 0
	}
	return it
}

// note appends what is no message.
func (r *ring) note(it item) {
	if r.n > 0 && (it.kind == EventMissed || it.kind == EventDropped) {
		if end := r.at(r.n - 1); end.kind == it.kind {
			end.n += it.n
			return
		}
	}
	r.push(it)
	r.compact()
}

// foldAt is how many notes may stand in a row.
const compactAt = 32

// fold puts a long row of notes at the end into few words: counts are added up,
// and of changes of the connection so many stay that the outcome is the same,
// with one gap from the first loss to the last return.
func (r *ring) compact() {
	if r.n < compactAt {
		return
	}
	for i := range compactAt {
		if r.at(r.n-1-i).kind == EventMessage {
			return
		}
	}
	var sum summary
	r.n -= compactAt
	for i := range compactAt {
		sum.add(r.at(r.n + i))
		*r.at(r.n + i) = item{}
	}
	for _, it := range sum.items() {
		r.push(it)
	}
}

// summary is what a row of notes comes to. Where one subscriber hears several
// channels, more than one may be interrupted.
type summary struct {
	subscribed, missed, dropped int
	// How many are interrupted, less than before the row: at the end, at the
	// worst moment, and at the best one after that.
	level, lowest, highest int
	gap                    item
}

func (s *summary) add(it *item) {
	switch it.kind {
	case EventMissed:
		s.missed += it.n
	case EventDropped:
		s.dropped += it.n
	case EventSubscribed:
		s.subscribed++
	case EventInterrupted:
		if s.level--; s.level < s.lowest {
			s.lowest, s.highest = s.level, s.level
		}
	case EventGap:
		s.level++
		s.highest = max(s.highest, s.level)
		if s.gap.since.IsZero() || it.since.Before(s.gap.since) {
			s.gap.since = it.since
		}
		s.gap.kind, s.gap.until = EventGap, it.until
	}
}

func (s *summary) items() (list []item) {
	repeat := func(n int, it item) {
		for range n {
			list = append(list, it)
		}
	}
	repeat(s.subscribed, item{kind: EventSubscribed})
	repeat(-s.lowest, item{kind: EventInterrupted})
	repeat(s.highest-s.lowest, s.gap)
	repeat(min(s.missed, 1), item{kind: EventMissed, n: s.missed})
	repeat(min(s.dropped, 1), item{kind: EventDropped, n: s.dropped})
	repeat(s.highest-s.level, item{kind: EventInterrupted})
	return list
}
