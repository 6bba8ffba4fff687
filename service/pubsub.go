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

// EventKind says what an [Event] tells.
type EventKind uint8

// The kinds of [Event].
const (
	// EventMessage is a message.
	EventMessage EventKind = iota
	// EventSubscribed: the server has confirmed every channel. What is
	// published from now on will come.
	EventSubscribed
	// EventInterrupted: the connection is lost and being made again. What is
	// published until the next EventSubscribed will not come.
	EventInterrupted
	// EventDropped: the reader was too slow; Missed messages were dropped at
	// this place.
	EventDropped
)

// String returns the kind in a word.
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

// Event is what a subscriber is told.
type Event struct {
	Kind EventKind
	// Channel and Message are those of an EventMessage; the channel without
	// Config.KeyPrefix.
	Channel string
	Message string
	// Missed is the number of messages of an EventDropped.
	Missed int
	// Gap is, in an EventSubscribed after an EventInterrupted, how long nothing
	// was heard.
	Gap time.Duration
}

// subscriberQueue is how many events wait for a slow reader.
const subscriberQueue = 1024

// Publish sends message to channel and returns how many connections received
// it: 0 is nobody, not a failure. In a cluster it counts those of one node. The
// channel has 1 to 1,024 bytes; reserved ones are a [*ValidationError]: what
// begins with __ is the server's own (Sentinels believe what they hear there),
// what begins with m1: that of the typed packages, see [WithReservedKeys].
func (s *Service) Publish(ctx context.Context, channel, message string) (receivers int64, err error) {
	if err := s.checkChannel(channel); err != nil {
		return 0, err
	}
	channel = s.prefix + channel
	n, err := s.integer(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Publish().Channel(channel).Message(message).Build()
	})
	return n, failed("publish", TablePubSub, err)
}

// Subscribe yields what is published to the channels, of which none may be
// reserved (see [Service.Publish]), until ctx ends or the loop is left. It begins when the loop begins, and survives a lost
// connection: it subscribes again, as often as it takes, and tells the gap by
// EventInterrupted and EventSubscribed. Redis keeps no messages: what was
// published in a gap is lost, so read anew what the messages are about.
// Messages of one channel come in order; between channels there is none.
//
// An error is the last thing that it yields: a [*ValidationError], or an
// [*Error] that waiting does not mend (no permission, client closed).
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
				var e *pubsub.Error
				if errors.As(err, &e) {
					err = e.Err // the rest is said by ours
				}
				yield(Event{}, failed("subscribe", TablePubSub, err))
				return
			}
			if ev, ok := eventOf(e); ok && !yield(ev, nil) {
				return
			}
		}
	}
}

// eventOf says the same in the words of this package; false has none.
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

// listen makes what the channels are listened to by, and counts a listener in.
func (s *Service) listen(channels []string) (_ *pubsub.Topics[string], leave func(), err error) {
	bus, leave, err := s.listeners.enter(s.redis)
	if err != nil {
		return nil, nil, failed("subscribe", TablePubSub, err)
	}
	topics, err := pubsub.NewTopics(bus, channels, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		leave()
		var v *pubsub.ValidationError
		if errors.As(err, &v) {
			return nil, nil, &ValidationError{Field: v.Field, Message: v.Message}
		}
		return nil, nil, failed("subscribe", TablePubSub, err)
	}
	return topics, leave, nil
}

// listeners have one bus while there are any. A service has no end of its own,
// so the bus ends with the last of them and leaves nothing behind; that Redis
// is closed ends them all.
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
	// It has no outbox, so there is nothing that could be lost.
	_ = bus.Close(context.Background())
}
