package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

// The scripts of a worker name keys that seldom exist: Redis refused them while the
// slot moved, and no message was worked on until it had moved.
func TestWork_GoesOnWhileItsSlotMoves(t *testing.T) {
	needStreams(t)
	c := madcrowtest.StartCluster(t)
	r := openConfig(t, c.Config())
	s, err := stream.New[string](r, "moving", stream.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(text string) {
		t.Helper()
		if _, err := s.Publish(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	publish("first")
	log := "m1:stream:{moving}:log"
	slot, to := c.Slot(log), c.Nodes()[0]
	if to == c.MasterOf(t, log) {
		to = c.Nodes()[1]
	}

	var mu sync.Mutex
	tries, done := map[string]int{}, map[string]bool{}
	isDone := func(text string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return done[text] }
	}
	work := func(_ context.Context, d stream.Delivery[string]) error {
		mu.Lock()
		tries[d.Message]++
		n := tries[d.Message]
		mu.Unlock()
		switch {
		case d.Message == "long":
			time.Sleep(2 * time.Second)
		case d.Message == "fails once" && n == 1:
			return errors.New("not now")
		}
		mu.Lock()
		defer mu.Unlock()
		done[d.Message] = true
		return nil
	}
	c.BeginMove(t, slot, to)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 { // what one does not renew, the other claims
		go func() {
			ended <- s.Work(ctx, "workers", work, stream.WorkOptions{ClaimAfter: 600 * time.Millisecond, RetryDelay: 100 * time.Millisecond})
		}()
	}
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	const limit = 2 * time.Second
	testkit.EventuallyWithin(t, testkit.Slack(limit), `"first" is done`, isDone("first"))
	c.MoveKeys(t, to, log)
	publish("long")
	publish("fails once")
	publish("second")
	if _, err := s.PublishIn(t.Context(), 50*time.Millisecond, "delayed"); err != nil { // it waits until the slot has moved
		t.Error(err)
	}
	testkit.EventuallyWithin(t, testkit.Slack(limit), `"second" is done`, isDone("second"))
	time.Sleep(2 * time.Second) // past ClaimAfter of the long one
	c.FinishMove(t, slot, to)
	testkit.EventuallyWithin(t, testkit.Slack(10*time.Second), `"fails once" is done`, isDone("fails once"))
	testkit.EventuallyWithin(t, testkit.Slack(10*time.Second), `"long" is done`, isDone("long"))
	testkit.EventuallyWithin(t, testkit.Slack(10*time.Second), `"delayed" is done`, isDone("delayed"))
	mu.Lock()
	defer mu.Unlock()
	if tries["long"] != 1 || tries["fails once"] != 2 {
		t.Errorf("tried %v", tries)
	}
}
