package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// followed is a subscription whose events the test takes one by one.
func followed(t *testing.T, topics *pubsub.Topics[string]) (next func() pubsub.Event[string]) {
	t.Helper()
	events := make(chan pubsub.Event[string])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range topics.Subscribe(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			select {
			case events <- e:
			case <-t.Context().Done():
			}
		}
	}()
	t.Cleanup(func() { <-done })
	return func() pubsub.Event[string] {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-done:
			t.Fatal("the subscription ended")
			return pubsub.Event[string]{}
		}
	}
}

func TestTopics_EventsAreMergedIntoOneState(t *testing.T) {
	redis := madcrowtest.StartRedis(t)
	cfg := redis.Config()
	cfg.KeyPrefix = "app*:"
	cfg.CommandTimeout = 5 * time.Second // a busy machine is no failure here
	b := newBus(t, openConfig(t, cfg), pubsub.Options{})
	names := []string{"a", "b", "c", "a"}
	topics, err := pubsub.NewTopics(b, names, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	patterns, err := pubsub.NewPatterns(b, []string{"[ab]", "[c]"}, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]*pubsub.Topics[string]{"topics": topics, "patterns": patterns} {
		next := followed(t, source)
		if e := next(); e.Kind != pubsub.EventSubscribed {
			t.Fatalf("%s: %+v", name, e)
		}
		for i := range 300 {
			redis.Do(t, "PUBLISH", "app*:"+names[i%3], fmt.Sprint(i))
			redis.Do(t, "PUBLISH", "appx:"+names[i%3], "of another application")
		}
		want := map[string]int{"a": 0, "b": 1, "c": 2} // each channel is in order
		for range 300 {
			e := next()
			if e.Kind != pubsub.EventMessage || e.Message != fmt.Sprint(want[e.Channel]) {
				t.Fatalf("%s: got %+v, want %v", name, e, want)
			}
			want[e.Channel] += 3
		}
		redis.Kill()
		if e := next(); e.Kind != pubsub.EventInterrupted {
			t.Fatalf("%s: %+v", name, e)
		}
		redis.Start()
		if e := next(); e.Kind != pubsub.EventGap || !e.Until.After(e.Since) {
			t.Fatalf("%s: %+v", name, e)
		}
		redis.Do(t, "PUBLISH", "app*:c", "again")
		if e := next(); e.Message != "again" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestTopics_WrongNamesAreRefused(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	var v *madcrow.ArgumentError
	for _, names := range [][]string{nil, {"a", ""}} {
		if _, err := pubsub.NewTopics(b, names, pubsub.TopicOptions[string]{}); !errors.As(err, &v) || v.Argument != "channel" {
			t.Errorf("%q: %v", names, err)
		}
		if _, err := pubsub.NewPatterns(b, names, pubsub.TopicOptions[string]{}); !errors.As(err, &v) || v.Argument != "pattern" {
			t.Errorf("%q: %v", names, err)
		}
	}
	if _, err := pubsub.NewPatterns(b, []string{"a"}, pubsub.TopicOptions[string]{Sharded: true}); !errors.As(err, &v) || v.Argument != "Options.Sharded" {
		t.Error(err)
	}
}

// Topics went on after the end of their context as long as messages came.
func TestTopics_EndWithTheirContextThoughMessagesCome(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	topics, err := pubsub.NewTopics(b, []string{"a", "b"}, pubsub.TopicOptions[int]{})
	if err != nil {
		t.Fatal(err)
	}
	source := topicOf(t, b, "a", pubsub.TopicOptions[int]{})
	another := hearing(t, subscribeTo(source))
	another.next(t, "subscribed", is[int](pubsub.EventSubscribed))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	after := 0
	for e, err := range topics.Subscribe(ctx) {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Kind == pubsub.EventSubscribed:
			for i := range 100 {
				if _, err := source.Publish(t.Context(), i); err != nil {
					t.Fatal(err)
				}
			}
			// What the other one of the channel has heard is in the queue of this one.
			another.next(t, "the last", func(e pubsub.Event[int]) bool { return e.Message == 99 })
			cancel()
		default:
			after++
		}
	}
	if after > 0 {
		t.Errorf("%d events after the end", after)
	}
}

// Plain topics of several channels took what looks like a numbered message for
// one: the second of two equal texts never came.
func TestTopics_PlainOnesTakeEveryMessageAsItIs(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topics, err := pubsub.NewTopics(b, []string{"a", "b"}, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	const text = "m1 p 1 0\nhello"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, ready := 0, 0
	for e, err := range topics.Subscribe(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case pubsub.EventSubscribed:
			if ready++; ready == 1 {
				for range 2 {
					srv.Do(t, "PUBLISH", "b", text)
				}
			}
		case pubsub.EventMessage:
			if e.Message != text {
				t.Errorf("%q", e.Message)
			}
			if got++; got == 2 {
				return
			}
		}
	}
}

// The error was wrapped twice, once under the channel's name with the prefix, or
// under that of the first channel when another one was refused.
func TestSubscribe_RefusalNamesItsChannelOnce(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("users have rules for channels from Redis 6.2 on")
	}
	srv := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "secret", "+@all", "~*", "resetchannels", "&app*:mine"))
	cfg := srv.Config()
	cfg.KeyPrefix, cfg.Username, cfg.Password = "app*:", "app", "secret"
	b := newBus(t, openConfig(t, cfg), pubsub.Options{})
	topics, err := pubsub.NewTopics(b, []string{"mine", "theirs"}, pubsub.TopicOptions[string]{})
	if err != nil {
		t.Fatal(err)
	}
	pattern, err := pubsub.NewPatterns(b, []string{"theirs"}, pubsub.TopicOptions[string]{})
	if err != nil {
		t.Fatal(err)
	}
	history, err := pubsub.NewRecoverable(b, "theirs", pubsub.RecoverableOptions[string]{})
	if err != nil {
		t.Fatal(err)
	}
	for what, source := range map[string]interface {
		Events(context.Context, pubsub.Position, ...pubsub.SubscribeOption) iter.Seq2[pubsub.Event[string], error]
	}{"topic": topicOf(t, b, "theirs", pubsub.TopicOptions[string]{}), "topics": topics, "pattern": pattern, "history": history} {
		var last error
		for _, last = range source.Events(t.Context(), pubsub.Position{}) {
		}
		var e *madcrow.Error
		if !errors.As(last, &e) || e.Op != "pubsub.subscribe" || e.Name != "theirs" || e.Kind != madcrow.KindPermission {
			t.Errorf("%s: %v", what, last)
			continue
		}
		if n := strings.Count(last.Error(), "pubsub.subscribe"); n != 1 {
			t.Errorf("%s: wrapped %d times: %v", what, n, last)
		}
	}
}
