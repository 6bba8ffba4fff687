package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// flight is one load in this process that many callers wait for.
type flight[T any] struct {
	encKey string
	tags   []*tagState
	fails  int // in a row, before this one
	done   chan struct{}
	queued atomic.Bool // it waits for one of Options.MaxLoads

	// What tags were when the load began; nil before. Of flights.mu.
	gens []*tagGen

	ended  sync.Once
	result Result[T] // set before done is closed, as err
	err    error
}

// tooLate is why a load that has not ended in time has not.
func (fl *flight[T]) tooLate() error {
	if fl.queued.Load() {
		return ErrBusy
	}
	return ErrLoadTimeout
}

// serves says whether a caller who comes now, and wants these tags, may share
// the load: what is loaded is not older than a change that is known, and can be
// removed by all of them.
func (fl *flight[T]) serves(tags []*tagState) bool {
	for _, s := range tags {
		if !slices.ContainsFunc(fl.tags, s.same) {
			return false
		}
	}
	now := clock.Now()
	for i, g := range fl.gens {
		if !fl.tags[i].still(g, now) {
			return false
		}
	}
	return true
}

// failure is a load that failed, until the next one may begin.
type failure struct {
	err   error
	until time.Time
	fails int
	timer *time.Timer
}

// flights holds one load for each key.
type flights[T any] struct {
	slots chan struct{} // bounds those that run

	mu       sync.Mutex
	running  map[string]*flight[T]
	failures map[string]*failure
	tasks    map[string]struct{}
	closed   bool
	all      sync.WaitGroup
}

func newFlights[T any](most int) *flights[T] {
	return &flights[T]{
		slots:   make(chan struct{}, most),
		running: map[string]*flight[T]{}, failures: map[string]*failure{}, tasks: map[string]struct{}{},
	}
}

// join returns the flight of a key: lead is true for a new one, which the
// caller must run. While a failure holds there is none, and the error is its.
func (f *flights[T]) join(encKey string, tags []*tagState) (fl *flight[T], lead bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, false, ErrClosed
	}
	if fl := f.running[encKey]; fl != nil && fl.serves(tags) {
		return fl, false, nil
	}
	fails := 0
	if bad := f.failures[encKey]; bad != nil {
		if time.Now().Before(bad.until) {
			return nil, false, bad.err
		}
		fails = bad.fails
	}
	fl = &flight[T]{encKey: encKey, tags: tags, fails: fails, done: make(chan struct{})}
	f.running[encKey] = fl
	f.all.Add(1)
	return fl, true, nil
}

// setGens notes that the load begins, and what its tags are.
func (f *flights[T]) setGens(fl *flight[T], gens []*tagGen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.gens = gens
}

// detachIf detaches a flight that brings what was found in Redis, if that still
// holds. No change comes in between.
func (f *flights[T]) detachIf(fl *flight[T], still func() bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !still() {
		return false
	}
	f.detachLocked(fl)
	return true
}

// detach lets those who come from now on load again.
func (f *flights[T]) detach(fl *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.detachLocked(fl)
}

func (f *flights[T]) detachLocked(fl *flight[T]) {
	if f.running[fl.encKey] == fl {
		delete(f.running, fl.encKey)
	}
}

// slot waits for one of the loads that may run.
func (f *flights[T]) slot(ctx context.Context) error {
	select {
	case f.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case f.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ErrBusy
	}
}

func (f *flights[T]) leaveSlot() { <-f.slots }

// finish ends a flight.
func (f *flights[T]) finish(fl *flight[T]) {
	f.detach(fl)
	close(fl.done)
}

// recordFailure notes that a load failed: others wait for the backoff.
func (f *flights[T]) recordFailure(fl *flight[T], err error, backoff time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[fl.encKey] != fl {
		return // it was forgotten: the next caller shall find out for itself
	}
	if old := f.failures[fl.encKey]; old != nil {
		old.timer.Stop()
	}
	bad := &failure{err: err, until: time.Now().Add(backoff), fails: fl.fails + 1}
	// Known for a while longer, so that the next failure counts as one in a row.
	bad.timer = time.AfterFunc(2*backoff, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.failures[fl.encKey] == bad {
			delete(f.failures, fl.encKey)
		}
	})
	f.failures[fl.encKey] = bad
}

// clearFailure forgets the failures of a key.
func (f *flights[T]) clearFailure(encKey string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bad := f.failures[encKey]; bad != nil {
		bad.timer.Stop()
		delete(f.failures, encKey)
	}
}

// remove lets those who come from now on load again: what is being loaded may be
// older than a change. Those who wait already get it.
func (f *flights[T]) remove(encKey string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, encKey)
}

// removeTag is remove for all that have a tag.
func (f *flights[T]) removeTag(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for encKey, fl := range f.running {
		if slices.ContainsFunc(fl.tags, func(s *tagState) bool { return s.key == key }) {
			delete(f.running, encKey)
		}
	}
}

// once runs a task in the background, unless one of that name runs already or
// all is closed: then it returns false.
func (f *flights[T]) once(name string, do func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, busy := f.tasks[name]; busy || f.closed {
		return false
	}
	f.tasks[name] = struct{}{}
	f.all.Go(func() {
		defer func() {
			f.mu.Lock()
			delete(f.tasks, name)
			f.mu.Unlock()
		}()
		do()
	})
	return true
}

// close lets nothing new begin, and waits for everything that runs.
func (f *flights[T]) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.all.Wait()
}

// watchers lets those who wait know that a key changed.
type watchers struct {
	mu sync.Mutex
	of map[string]map[chan struct{}]struct{}
}

func (w *watchers) add(keys ...string) (ch chan struct{}, done func()) {
	ch = make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[string]map[chan struct{}]struct{}{}
	}
	for _, k := range keys {
		if w.of[k] == nil {
			w.of[k] = map[chan struct{}]struct{}{}
		}
		w.of[k][ch] = struct{}{}
	}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, k := range keys {
			if delete(w.of[k], ch); len(w.of[k]) == 0 {
				delete(w.of, k)
			}
		}
	}
}

func (w *watchers) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.of[key] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

var errGoexit = errors.New("the loader ended its goroutine")
