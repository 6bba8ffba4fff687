package service

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
)

// subscriberQueue is how many events wait for a slow reader.
const subscriberQueue = 1024

// Publish sends message to channel and returns how many connections received it; 0
// is not a failure. In a cluster it counts the connections of one node. The channel
// has 1 to 1,024 bytes. Reserved channels are a [*madcrow.ArgumentError]: those that begin
// with __ belong to the server (Sentinels trust messages on theirs), those that begin
// with m1: to the typed packages, see [Options].
func (s *Service) Publish(ctx context.Context, channel, message string) (receivers int64, err error) {
	if err := s.checkChannel(channel); err != nil {
		return 0, err
	}
	channel = s.prefix + channel
	n, err := s.integer(ctx, s.redis.B().Publish().Channel(channel).Message(message).Build())
	return n, Failed("publish", TablePubSub, err)
}

// Subscribe yields the messages of the channels until ctx ends or the loop is left.
// None of the channels may be reserved (see [Service.Publish]). The subscription
// starts with the loop: [pubsub.EventSubscribed] comes once the server has confirmed
// every channel. After a lost connection it subscribes again, as often as needed, and
// reports the gap by [pubsub.EventInterrupted] and then [pubsub.EventGap]. Redis keeps
// no messages: those published in a gap are lost, so read the data that the messages
// are about again. Messages of one channel arrive in order; there is no order between
// channels.
//
// An error is the last value that it yields: a [*madcrow.ArgumentError], or a [*madcrow.Error]
// that does not resolve by waiting (no permission, client closed).
//
// Up to 1,024 events wait for a slow reader; further messages are dropped and
// counted in an [pubsub.EventDropped], so that one slow reader does not hold up the
// others on the same connection.
func (s *Service) Subscribe(ctx context.Context, channels ...string) iter.Seq2[pubsub.Event[string], error] {
	return func(yield func(pubsub.Event[string], error) bool) {
		topics, leave, err := s.listen(channels)
		if err != nil {
			yield(pubsub.Event[string]{}, err)
			return
		}
		defer leave()
		for e, err := range topics.Subscribe(ctx, pubsub.WithQueue(subscriberQueue)) {
			if err != nil {
				var e *madcrow.Error
				if errors.As(err, &e) {
					err = e.Err // Operation and Table of ours replace its own
				}
				yield(pubsub.Event[string]{}, Failed("subscribe", TablePubSub, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// listen returns the topics of the channels, on the shared bus. The caller must
// call leave.
func (s *Service) listen(channels []string) (_ *pubsub.Topics[string], leave func(), err error) {
	bus, leave, err := s.listeners.enter(s.redis)
	if err != nil {
		return nil, nil, Failed("subscribe", TablePubSub, err)
	}
	topics, err := pubsub.NewTopics(bus, channels, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		leave()
		var v *madcrow.ArgumentError
		if errors.As(err, &v) {
			return nil, nil, invalid(v.Argument, v.Reason)
		}
		return nil, nil, Failed("subscribe", TablePubSub, err)
	}
	return topics, leave, nil
}

// listeners share one bus. A service has no Close, so the bus is made for the first
// listener and closed by the last. Closing the Redis ends them all.
type listeners struct {
	mu  sync.Mutex
	n   int
	bus *pubsub.Bus
}

func (l *listeners) enter(r *madcrow.Redis) (*pubsub.Bus, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bus == nil {
		bus, err := pubsub.New(r, pubsub.Options{})
		if err != nil {
			return nil, nil, err
		}
		l.bus = bus
	}
	l.n++
	return l.bus, sync.OnceFunc(l.leave), nil
}

func (l *listeners) leave() {
	l.mu.Lock()
	bus := l.bus
	if l.n--; l.n > 0 {
		l.mu.Unlock()
		return
	}
	l.bus = nil
	l.mu.Unlock()
	// It has no outbox, so Close has no messages to wait for.
	_ = bus.Close(context.Background())
}
