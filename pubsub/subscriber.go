package pubsub

import (
	"sync"
	"sync/atomic"
	"time"
)

// EventKind is the kind of an [Event].
type EventKind uint8

// The kinds of events.
const (
	// EventMessage is a message.
	EventMessage EventKind = iota
	// EventSubscribed: the server has confirmed. Messages published from now on
	// will come.
	EventSubscribed
	// EventInterrupted: the connection is lost and being restored. Messages
	// published until the next EventGap may not come.
	EventInterrupted
	// EventGap: messages come again; between Since and Until they did not.
	EventGap
	// EventMissed: N typed messages were published and did not come.
	EventMissed
	// EventDropped: N messages were dropped at this place, because this
	// subscriber was too slow.
	EventDropped
	// EventHistoryLost: messages after the position before are not kept any more
	// ([Recoverable] only). Err is [ErrHistoryLost]. Read again what the messages
	// are about; the messages that follow are those after the Position of this
	// event.
	EventHistoryLost
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

// Overflow says which messages are dropped when a subscriber is too slow.
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
	// DropNewest drops messages that come while the queue is full. It is the
	// default.
	DropNewest = Overflow{rule: ruleNewest}
	// DropOldest drops the message that has waited longest.
	DropOldest = Overflow{rule: ruleOldest}
	// Disconnect ends the subscription with [ErrSlow], after what is in the
	// queue.
	Disconnect = Overflow{rule: ruleDisconnect}
)

// Block lets messages wait for a place for up to d, at most as many as the
// queue holds; then they are dropped. No other subscriber waits with them. A
// negative d is 0.
func Block(d time.Duration) Overflow { return Overflow{rule: ruleBlock, wait: max(d, 0)} }

// item is one entry of a subscriber's queue.
type item struct {
	kind         EventKind
	message      *message // of an EventMessage; shared by all subscribers
	n            int
	since, until time.Time
}

// message is a message as it arrived.
type message struct {
	channel      string
	raw, payload string // as it came, and without its envelope
	env          envelope

	shared  bool // several subscribers decode it; the rest is of decode
	once    sync.Once
	plain   bool
	decoded any
	failed  error
	sum     atomic.Pointer[[32]byte] // see digest
}

// subscriber is one local subscriber: a bounded queue of messages interleaved with
// control events. Control events are never dropped; long runs of them are merged.
type subscriber struct {
	maxMessages int
	maxBytes    int // of queue, and of waiting; 0 is no bound
	overflow    Overflow
	plain       bool          // it gets all texts as they come, and no EventMissed
	reserved    bool          // it gets the reserved channels of its pattern too
	ready       chan struct{} // has a token when there may be an item
	dropped     func(n int)   // is called for each loss; nil for a probe

	mu           sync.Mutex
	beforeQueue  ring        // control events from before the queue
	queue        ring        // at most bound messages, and notes
	messages     int         // in queue
	bytes        int         // of the messages in queue
	waiting      ring        // beyond the bound, by Block
	waitingBytes int         // bytes of the messages in waiting
	arrived      []time.Time // of the messages in waiting
	endErr       error       // the reason of the end
	endKey       channelKey  // the subscription that ended it; empty for ErrSlow
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

// countOut counts a message out.
func (s *subscriber) countOut(it item) {
	s.messages--
	s.bytes -= it.size()
}

// newest returns the ring with the newest items.
func (s *subscriber) newest() *ring {
	if s.waiting.n > 0 {
		return &s.waiting
	}
	return &s.queue
}

// noteDrop notes the loss of one message at the end of r.
func (s *subscriber) noteDrop(r *ring) {
	r.note(item{kind: EventDropped, n: 1})
	if s.dropped != nil {
		s.dropped(1)
	}
}

// dropOldest replaces the oldest message by a control event. There is one, since
// the queue is full.
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

// expire drops messages that have waited too long for a place. The first item that
// still waits, if any, is then a message that may get one.
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

// next removes and returns the oldest item. ok is false when there is none now; err
// is the reason when there will be none.
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

// endedBy returns the subscription that failed, or other where none did.
func (s *subscriber) endedBy(other channelKey) channelKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endKey == (channelKey{}) {
		return other
	}
	return s.endKey
}

// end lets no more items in, because the subscription of key failed. Those that
// wait are still delivered.
func (s *subscriber) end(key channelKey, err error) {
	s.mu.Lock()
	if !s.ended {
		s.ended, s.endKey, s.endErr = true, key, err
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

// note appends a control event. Counts of the same kind are added up.
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

// compactAt is how many control events may stand in a row.
const compactAt = 32

// compact merges a long run of control events at the end: counts are added up, and
// of changes of the connection so many stay that the result is the same, with one
// gap from the first loss to the last return.
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

// summary is the sum of a run of control events. Where one subscriber has several
// channels, more than one may be interrupted.
type summary struct {
	subscribed, missed, dropped int
	// How many channels are connected, relative to the start of the run: at the
	// end, at the worst moment, and at the best one after that.
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
