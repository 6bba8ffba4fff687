package service

import "sync"

// eventQueue holds events for one reader. Messages beyond its bound are
// dropped and counted; the other events are few and always kept.
type eventQueue struct {
	// ready has a token when there may be something to pop.
	ready chan struct{}

	mu     sync.Mutex
	events []Event
	bound  int
	missed int
}

func newEventQueue(bound int) eventQueue {
	return eventQueue{ready: make(chan struct{}, 1), bound: bound}
}

// push never waits.
func (q *eventQueue) push(ev Event) {
	q.mu.Lock()
	if ev.Kind == EventMessage && len(q.events) >= q.bound {
		q.missed++
	} else {
		q.tellMissed()
		q.events = append(q.events, ev)
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pop returns the oldest event, if there is one.
func (q *eventQueue) pop() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		q.tellMissed()
	}
	if len(q.events) == 0 {
		return Event{}, false
	}
	ev := q.events[0]
	q.events[0] = Event{} // let the message go
	q.events = q.events[1:]
	if len(q.events) == 0 {
		q.events = nil
	}
	return ev, true
}

// tellMissed puts the count at the place of the messages that are not there.
func (q *eventQueue) tellMissed() {
	if q.missed > 0 {
		q.events = append(q.events, Event{Kind: EventDropped, Missed: q.missed})
		q.missed = 0
	}
}
