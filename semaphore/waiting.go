package semaphore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/pending"
)

// waiting are the calls of Acquire in this process that wait, by the key of their
// subject and in the order of their arrival. Only the first of a subject asks Redis:
// when it is woken, and otherwise from time to time.
//
// A release in this process wakes the first at once. A release in another one is
// published by Redis, where all leases of the subject were taken; while any call
// waits, one subscription of this semaphore listens for that.
type waiting struct {
	s        *Semaphore
	channel  string
	listener *pending.Runner

	mu     sync.Mutex
	queues map[string]*queue
	calls  int                // that wait
	heard  uint64             // releases, of any subject
	stop   context.CancelFunc // ends the subscription; nil while there is none
	idle   *time.Timer        // ends it some time after the last call
	pause  time.Time          // none is tried before: the last one was not allowed

	unheard sync.Once // the log says that the subscription is not allowed
}

// queue are the waiting calls of one subject.
type queue struct {
	calls []*waiter
	// due is when the first is to ask next, whoever that is then: a call that leaves
	// hands the turn on.
	due      time.Time
	answered time.Time // when Redis last answered one of them
}

// waiter is one waiting call.
type waiter struct {
	key   string
	wake  chan struct{} // holds one: ask Redis now
	first chan struct{} // closed when it is the first of its subject
}

// keepListening is how long the subscription outlives the last waiting call.
const keepListening = 30 * time.Second

func newWaiting(s *Semaphore) *waiting {
	w := &waiting{s: s, channel: s.keyPrefix + "released", queues: make(map[string]*queue)}
	w.listener = pending.NewRunner(s.r, pending.RunnerOptions{Backoff: clock.Backoff{First: time.Second / 16, Most: time.Second}}, w.listen)
	return w
}

// busy reports whether a call waits for the key already. heard is for join.
func (w *waiting) busy(key string) (busy bool, heard uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queues[key] != nil, w.heard
}

// join appends a call to those that wait for the key. asked says that it was denied
// before, and pause when to ask again then. heard is that of busy before it asked: a
// release since then may be the one that it needs.
func (w *waiting) join(key string, heard uint64, asked bool, pause time.Duration) *waiter {
	own := &waiter{key: key, wake: make(chan struct{}, 1), first: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queues[key]
	if q == nil {
		q = &queue{}
		w.queues[key] = q
	}
	if q.calls = append(q.calls, own); len(q.calls) == 1 {
		close(own.first)
	}
	if asked {
		q.asked(pause)
		if w.heard != heard {
			q.calls[0].notify()
		}
	}
	w.calls++
	if w.idle != nil {
		w.idle.Stop()
	}
	if w.stop == nil && !time.Now().Before(w.pause) {
		w.listener.Wake()
	}
	return own
}

func (q *queue) asked(pause time.Duration) {
	q.answered = time.Now()
	q.due = q.answered.Add(pause)
}

// denied notes that Redis has denied a call that waits for the key, and when the
// first is to ask again.
func (w *waiting) denied(key string, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queues[key].asked(pause)
}

// turn is how long the first call that waits for the key sleeps where nothing wakes
// it.
func (w *waiting) turn(key string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Until(w.queues[key].due)
}

// answers reports whether Redis has answered a call that waits for the key within d.
func (w *waiting) answers(key string, d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.queues[key].answered) < d
}

// leave removes a call. more says that the next one may find a lease, too.
func (w *waiting) leave(own *waiter, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-own.wake: // it was woken and did not ask: another one must
		more = true
	default:
	}
	q := w.queues[own.key]
	i := slices.Index(q.calls, own)
	q.calls = slices.Delete(q.calls, i, i+1)
	if len(q.calls) == 0 {
		delete(w.queues, own.key)
	} else {
		if i == 0 {
			close(q.calls[0].first)
		}
		if more {
			q.calls[0].notify()
		}
	}
	if w.calls--; w.calls == 0 {
		w.idle = time.AfterFunc(keepListening, w.endIdle)
	}
}

func (own *waiter) notify() {
	select {
	case own.wake <- struct{}{}:
	default:
	}
}

// released wakes the first call that waits for the key.
func (w *waiting) released(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard++
	if q := w.queues[key]; q != nil {
		q.calls[0].notify()
	}
}

// failed wakes all calls that wait for the key: each learns of the failure from its
// own call, and none waits behind another one's time-out.
func (w *waiting) failed(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if q := w.queues[key]; q != nil {
		for _, own := range q.calls {
			own.notify()
		}
	}
}

// subscribed wakes the first call of each subject: what was published before is
// lost.
func (w *waiting) subscribed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard++
	for _, q := range w.queues {
		q.calls[0].notify()
	}
}

func (w *waiting) endIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == 0 && w.stop != nil {
		w.stop()
	}
}

// listen receives what is published of releases, while any call waits. Without it
// the calls still ask from time to time.
func (w *waiting) listen(ctx context.Context) pending.Progress {
	own, stop := context.WithCancel(ctx)
	defer stop()
	w.mu.Lock()
	w.stop = stop
	w.mu.Unlock()
	var heard atomic.Bool
	err := w.s.r.Subscribe(own, madcrow.Subscription{Channels: []string{w.channel}}, madcrow.Handler{
		OnMessage:    func(m madcrow.PubSubMessage) { w.released(m.Payload) },
		OnSubscribed: func(string) { heard.Store(true); w.subscribed() },
	})
	w.mu.Lock()
	w.stop = nil
	idle := w.calls == 0
	if errors.Is(err, madcrow.ErrPermission) {
		w.pause = time.Now().Add(keepListening)
	}
	w.mu.Unlock()
	switch {
	case idle || ctx.Err() != nil:
		return pending.Done
	case errors.Is(err, madcrow.ErrPermission):
		w.unheard.Do(func() {
			w.s.opt.Logger.Warn("calls that wait for a lease are not woken by other processes, and ask Redis at least once a second: allow SUBSCRIBE and the channel to this user",
				"semaphore", w.s.name, "channel", w.channel, "reason", err)
		})
		return pending.Done
	case operr.Permanent(err):
		return pending.Done
	case heard.Load():
		return pending.Some
	}
	return pending.None
}
