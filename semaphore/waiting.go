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
	queues map[string][]*waiter
	calls  int                // that wait
	stop   context.CancelFunc // ends the subscription; nil while there is none
	idle   *time.Timer        // ends it some time after the last call

	unheard sync.Once // the log says that the subscription is not allowed
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
	w := &waiting{s: s, channel: s.keyPrefix + "released", queues: make(map[string][]*waiter)}
	w.listener = pending.NewRunner(s.r, pending.RunnerOptions{Backoff: clock.Backoff{First: time.Second / 16, Most: time.Second}}, w.listen)
	return w
}

// busy reports whether a call waits for the key already.
func (w *waiting) busy(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queues[key]) > 0
}

// join appends a call to those that wait for the key.
func (w *waiting) join(key string) *waiter {
	own := &waiter{key: key, wake: make(chan struct{}, 1), first: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queues[key] = append(w.queues[key], own)
	if len(w.queues[key]) == 1 {
		close(own.first)
	}
	w.calls++
	if w.idle != nil {
		w.idle.Stop()
	}
	if w.stop == nil {
		w.listener.Wake()
	}
	return own
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
	queue := w.queues[own.key]
	i := slices.Index(queue, own)
	queue = slices.Delete(queue, i, i+1)
	if len(queue) == 0 {
		delete(w.queues, own.key)
	} else {
		w.queues[own.key] = queue
		if i == 0 {
			close(queue[0].first)
		}
		if more {
			queue[0].notify()
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
	if queue := w.queues[key]; len(queue) > 0 {
		queue[0].notify()
	}
}

// failed wakes all calls that wait for the key: each learns of the failure from its
// own call, and none waits behind another one's time-out.
func (w *waiting) failed(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, own := range w.queues[key] {
		own.notify()
	}
}

// subscribed wakes the first call of each subject: what was published before is
// lost.
func (w *waiting) subscribed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range w.queues {
		queue[0].notify()
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
