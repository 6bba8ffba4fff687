package pubsub_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// Whatever makes something of a name that may be a stranger's refuses reserved
// ones: they were handed to Redis as they were.
func TestReserved_NamesAreRefused(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	for _, prefix := range []string{"", "app:"} {
		b := newBus(t, openConfig(t, withPrefix(srv.Config(), prefix)), pubsub.Options{})
		for _, name := range []string{"__sentinel__:hello", "__redis__:invalidate", "m1:topic:{pay}:live", "shop:m1:topic:{pay}:live", "m1:*"} {
			for _, reserved := range []bool{false, true} {
				opt := pubsub.TopicOptions[string]{Plain: true, Reserved: reserved}
				_, err1 := pubsub.NewTopic(b, name, opt)
				_, err2 := pubsub.NewTopics(b, []string{"a", name}, opt)
				_, err3 := pubsub.NewPatterns(b, []string{name}, opt)
				_, err4 := pubsub.NewPatterns(b, []string{"a", name}, opt)
				for i, err := range []error{err1, err2, err3, err4} {
					var v *madcrow.ArgumentError
					if refused := errors.As(err, &v); refused == reserved {
						t.Errorf("prefix %q, way %d, reserved %v, %s: %v", prefix, i, reserved, name, err)
					}
				}
			}
		}
		// Names in keys of their own are not channels.
		if _, err := pubsub.NewRecoverable(b, "__sentinel__:hello", pubsub.RecoverableOptions[string]{}); err != nil {
			t.Error(err)
		}
	}
}

// A pattern did not hear channels with m1: somewhere inside, which belong to no one but
// the user's, and said nothing; and they could not be published to.
func TestReserved_ChannelsWithM1InsideAreOrdinary(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	p, err := pubsub.NewPatterns(b, []string{"factory:*"}, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	e := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[string], error] { return p.Subscribe(ctx) })
	e.next(t, "subscribed", func(e pubsub.Event[string]) bool { return e.Kind == pubsub.EventSubscribed })
	srv.Do(t, "PUBLISH", "factory:m1:topic:{pay}:live", "hidden")
	srv.Do(t, "PUBLISH", "factory:m1:temperature", "20")
	if got := e.next(t, "a message", func(pubsub.Event[string]) bool { return true }); got.Message != "20" {
		t.Errorf("heard %q", got.Message)
	}
	topic, err := pubsub.NewTopic(b, "factory:m1:temperature", pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := topic.Publish(t.Context(), "21"); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}

func withPrefix(cfg madcrow.Config, prefix string) madcrow.Config {
	cfg.KeyPrefix = prefix
	return cfg
}

// The pattern "*" heard recoverable topics, and what servers send each other.
func TestReserved_PatternsDoNotMatchReservedChannels(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	follow := func(pattern string, reserved bool) *ear[pubsub.Event[string]] {
		p, err := pubsub.NewPatterns(b, []string{pattern}, pubsub.TopicOptions[string]{Reserved: reserved})
		if err != nil {
			t.Fatal(err)
		}
		e := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[string], error] { return p.Subscribe(ctx) })
		e.next(t, "subscribed", func(e pubsub.Event[string]) bool { return e.Kind == pubsub.EventSubscribed })
		return e
	}
	strangers := []*ear[pubsub.Event[string]]{follow("*", false), follow("[_m]*", false), follow("?[1_]*", false)}
	operator := follow("*", true)
	for _, channel := range []string{"__keyspace@0__:k", "m1:topic:{pay}:live", "shop:m1:topic:{pay}:live", "m1news"} {
		srv.Do(t, "PUBLISH", channel, channel)
	}
	for i, e := range strangers {
		if got := e.next(t, "a message", func(pubsub.Event[string]) bool { return true }); got.Channel != "m1news" {
			t.Errorf("stranger %d heard %q", i, got.Channel)
		}
	}
	for _, want := range []string{"__keyspace@0__:k", "m1:topic:{pay}:live", "shop:m1:topic:{pay}:live", "m1news"} {
		if got := operator.next(t, want, func(pubsub.Event[string]) bool { return true }); got.Channel != want {
			t.Errorf("the operator heard %q, want %q", got.Channel, want)
		}
	}
}
