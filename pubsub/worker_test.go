package pubsub_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// trap is a message whose decoding does what it says.
type trap struct{ what string }

func (m *trap) UnmarshalJSON(data []byte) error {
	switch m.what = strings.Trim(string(data), `"`); m.what {
	case "decode panics":
		panic("no such shape")
	case "decode exits":
		runtime.Goexit()
	}
	return nil
}

func (m trap) MarshalJSON() ([]byte, error) { return []byte(`"` + m.what + `"`), nil }

// mute is an error that cannot say what it is.
type mute struct{ exits bool }

func (m mute) Error() string {
	if m.exits {
		runtime.Goexit()
	}
	panic(m)
}

// trickyError has methods that panic, which errors.Is and errors.As call.
type trickyError struct{}

func (trickyError) Error() string { return "tricky" }
func (trickyError) Unwrap() error { panic("unwrapped") }
func (trickyError) As(any) bool   { panic("asked what it is") }
func (trickyError) Is(error) bool { panic("compared") }

// badRecorder panics at every event.
type badRecorder struct{ counter }

func (*badRecorder) Event(string, string, int) { panic("the recorder") }

// What a user's code does never ends the process and never leaves a message in
// hands that are empty. A panic while a message was decoded ended the process,
// and a worker that ended its goroutine kept the message for ever.
func TestWork_WhateverUsersCodeDoesTheMessageGoesOn(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	cfg.Recorder = &badRecorder{}
	s, err := pubsub.NewStream(newBus(t, openConfig(t, cfg), pubsub.Options{}), "s", pubsub.StreamOptions[trap]{})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{ // and how often it is tried
		"decode panics": "1 the message cannot be decoded: panic: no such shape",
		"decode exits":  "1 the message cannot be decoded: it ended its goroutine",
		"panics":        "2 panic: at work",
		"exits":         "2 the worker: it ended its goroutine",
		"mute panics":   "2 its text could not be made",
		"mute exits":    "2 its text could not be made",
		"panics mute":   "2 panic: its text could not be made",
		"fails":         "2 why",
		"tricky":        "2 tricky",
	}
	for what := range reasons {
		if _, err := s.Publish(t.Context(), trap{what}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Publish(t.Context(), trap{"fine"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fine := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(_ context.Context, d pubsub.Delivery[trap]) error {
			switch d.Message.what {
			case "panics":
				panic("at work")
			case "exits":
				runtime.Goexit()
			case "mute panics":
				return mute{}
			case "mute exits":
				return mute{exits: true}
			case "panics mute":
				panic(mute{})
			case "tricky":
				return trickyError{}
			case "fine":
				close(fine)
				return nil
			}
			return errors.New("why")
		}, pubsub.WorkOptions{Workers: 1, MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond, ClaimAfter: time.Second})
	}()
	eventually(t, "all are put aside", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == int64(len(reasons)) && l.Pending == 0
	})
	<-fine
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	entries, _ := srv.Do(t, "XRANGE", "m1:stream:{s}:dead:g", "-", "+").([]any)
	for _, entry := range entries {
		f, _ := entry.([]any)[1].([]any)
		field := func(i int) string { s, _ := f[i].(string); return s }
		what := strings.Trim(field(7), `"`)
		if got := field(5) + " " + field(3); got != reasons[what] {
			t.Errorf("%s: %q, not %q", what, got, reasons[what])
		}
	}
}

// A panic is logged with its stack, and not with each try.
func TestWork_PanicIsLoggedOnceWithItsStack(t *testing.T) {
	needStreams(t)
	var out strings.Builder
	var mu sync.Mutex
	log := madcrowLog(func(line string) {
		mu.Lock()
		defer mu.Unlock()
		out.WriteString(line)
	})
	srv := madcrowtest.StartRedis(t)
	s, err := pubsub.NewStream(newBus(t, openConfig(t, srv.Config()), pubsub.Options{Logger: log}), "s", pubsub.StreamOptions[int]{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := s.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(context.Context, pubsub.Delivery[int]) error { panic("at work") },
			pubsub.WorkOptions{MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond, ClaimAfter: time.Second})
	}()
	eventually(t, "all are put aside", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == 3
	})
	cancel()
	<-ended
	mu.Lock()
	defer mu.Unlock()
	if text := out.String(); strings.Count(text, "made its worker panic") != 1 || !strings.Contains(text, "worker_test.go") {
		t.Errorf("logged: %s", text)
	}
}

// A subscriber whose decoding panics is told that the message is malformed, and
// goes on.
func TestTopic_DecodingThatPanicsIsAMalformedMessage(t *testing.T) {
	topic := topicOf(t, newBus(t, open(t), pubsub.Options{}), "c", pubsub.TopicOptions[trap]{})
	l := hearing(t, subscribeTo(topic))
	l.next(t, "subscribed", is[trap](pubsub.EventSubscribed))
	for _, what := range []string{"decode panics", "fine"} {
		if _, err := topic.Publish(t.Context(), trap{what}); err != nil {
			t.Fatal(err)
		}
	}
	if e := l.next(t, "the malformed one", is[trap](pubsub.EventMessage)); !errors.Is(e.Err, pubsub.ErrMalformed) {
		t.Errorf("%+v", e)
	}
	if e := l.next(t, "the one after it", is[trap](pubsub.EventMessage)); e.Err != nil || e.Message.what != "fine" {
		t.Errorf("%+v", e)
	}
}
