package service

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
)

// EventKind is the kind of an [Event].
type EventKind uint8

// The kinds of [Event].
const (
	// EventMessage is a message.
	EventMessage EventKind = iota
	// EventSubscribed: the server has confirmed every channel. Messages published
	// from now on are delivered.
	EventSubscribed
	// EventInterrupted: the connection is lost and being restored. Messages
	// published until the next EventSubscribed are lost.
	EventInterrupted
	// EventDropped: the reader was too slow; Missed messages were dropped here.
	EventDropped
)

// String returns the name of the kind.
func (k EventKind) String() string {
	switch k {
	case EventMessage:
		return "message"
	case EventSubscribed:
		return "subscribed"
	case EventInterrupted:
		return "interrupted"
	case EventDropped:
		return "dropped"
	}
	return "unknown"
}

// Event is a message, or an event of the subscription.
type Event struct {
	Kind EventKind
	// Channel and Message are those of an EventMessage; the channel without
	// Config.KeyPrefix.
	Channel string
	Message string
	// Missed is the number of messages of an EventDropped.
	Missed int
	// Gap is how long the subscription was interrupted, in an EventSubscribed
	// after an EventInterrupted.
	Gap time.Duration
}

// subscriberQueue is how many events wait for a slow reader.
const subscriberQueue = 1024

// Publish sends message to channel and returns how many connections received it; 0
// is not a failure. In a cluster it counts the connections of one node. The channel
// has 1 to 1,024 bytes. Reserved channels are a [*madcrow.ArgumentError]: those that begin
// with __ belong to the server (Sentinels trust messages on theirs), those that begin
// with m1: to the typed packages, see [WithReservedKeys].
func (s *Service) Publish(ctx context.Context, channel, message string) (receivers int64, err error) {
	if err := s.checkChannel(channel); err != nil {
		return 0, err
	}
	channel = s.prefix + channel
	n, err := s.integer(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Publish().Channel(channel).Message(message).Build()
	})
	return n, Failed("publish", TablePubSub, err)
}

// Subscribe yields the messages of the channels until ctx ends or the loop is left.
// None of the channels may be reserved (see [Service.Publish]). The subscription
// starts with the loop. After a lost connection it subscribes again, as often as
// needed, and reports the gap by EventInterrupted and EventSubscribed. Redis keeps no
// messages: those published in a gap are lost, so read the data that the messages
// are about again. Messages of one channel arrive in order; there is no order between
// channels.
//
// An error is the last value that it yields: a [*madcrow.ArgumentError], or a [*madcrow.Error]
// that does not resolve by waiting (no permission, client closed).
//
// Up to 1,024 events wait for a slow reader; further messages are dropped and
// counted in an EventDropped, so that one slow reader does not hold up the
// others on the same connection.
func (s *Service) Subscribe(ctx context.Context, channels ...string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		topics, leave, err := s.listen(channels)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer leave()
		for e, err := range topics.Subscribe(ctx, pubsub.WithQueue(subscriberQueue)) {
			if err != nil {
				var e *madcrow.Error
				if errors.As(err, &e) {
					err = e.Err // Operation and Table of ours replace its own
				}
				yield(Event{}, Failed("subscribe", TablePubSub, err))
				return
			}
			if ev, ok := eventOf(e); ok && !yield(ev, nil) {
				return
			}
		}
	}
}

// eventOf converts an event; false for kinds that this package does not have.
func eventOf(e pubsub.Event[string]) (Event, bool) {
	switch e.Kind {
	case pubsub.EventMessage:
		return Event{Channel: e.Channel, Message: e.Message}, true
	case pubsub.EventSubscribed:
		return Event{Kind: EventSubscribed}, true
	case pubsub.EventGap:
		return Event{Kind: EventSubscribed, Gap: e.Until.Sub(e.Since)}, true
	case pubsub.EventInterrupted:
		return Event{Kind: EventInterrupted}, true
	case pubsub.EventDropped:
		return Event{Kind: EventDropped, Missed: e.N}, true
	}
	return Event{}, false
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
