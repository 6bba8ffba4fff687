package semaphore

import (
	"testing"
	"time"
)

// A release between the denial and the place in the queue woke no one.
func TestWaiting_AReleaseBetweenTheDenialAndTheQueueIsHeard(t *testing.T) {
	w := &waiting{queues: make(map[string]*queue), stop: func() {}}
	_, heard := w.busy("x")
	w.released("x")
	own := w.join("x", heard, true, time.Second)
	select {
	case <-own.wake:
	default:
		t.Error("it sleeps, and the lease is free")
	}
	_, heard = w.busy("y")
	select {
	case <-w.join("y", heard, true, time.Second).wake:
		t.Error("it was woken for nothing")
	default:
	}
}

// The turn to ask is that of the queue: who did not ask and becomes the first asks at
// once where it is due.
func TestWaiting_TheTurnIsHandedOn(t *testing.T) {
	w := &waiting{queues: make(map[string]*queue), stop: func() {}}
	first := w.join("x", 0, true, time.Minute)
	w.join("x", 0, false, time.Second)
	w.leave(first, false)
	w.idle = nil
	if left := w.turn("x"); left < 50*time.Second || left > time.Minute {
		t.Errorf("due in %v", left)
	}
	w.join("y", 0, false, time.Minute) // the queue that it saw is empty by now
	if left := w.turn("y"); left > 0 {
		t.Errorf("due in %v, and it has not asked", left)
	}
}
