package service

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
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

const (
	// subscriberQueue is how many events wait for a slow reader.
	subscriberQueue = 1024
	minReconnect    = 25 * time.Millisecond
	maxReconnect    = 500 * time.Millisecond
)

// Publish sends message to channel and returns how many connections received
// it: 0 is nobody, not a failure. In a cluster it counts those of one node.
func (s *Service) Publish(ctx context.Context, channel, message string) (receivers int64, err error) {
	if channel == "" {
		return 0, &ValidationError{Field: "channel", Message: "must not be empty"}
	}
	channel = s.prefix + channel
	n, err := s.integer(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Publish().Channel(channel).Message(message).Build()
	})
	return n, failed("publish", TablePubSub, err)
}

// Subscribe yields what is published to the channels until ctx ends or the
// loop is left. It begins when the loop begins, and survives a lost
// connection: it subscribes again, as often as it takes, and tells the gap by
// EventInterrupted and EventSubscribed. Redis keeps no messages: what was
// published in a gap is lost, so read anew what the messages are about.
//
// An error is the last thing that it yields: a [*ValidationError], or an
// [*Error] that waiting does not mend (no permission, client closed).
//
// Up to 1,024 events wait for a slow reader; further messages are dropped and
// counted in an EventDropped, so that one slow reader does not hold up the
// others on the same connection.
func (s *Service) Subscribe(ctx context.Context, channels ...string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if len(channels) == 0 {
			yield(Event{}, &ValidationError{Field: "channel", Message: "at least one is needed"})
			return
		}
		for _, c := range channels {
			if c == "" {
				yield(Event{}, &ValidationError{Field: "channel", Message: "must not be empty"})
				return
			}
		}
		ctx, cancel := context.WithCancel(ctx)
		sub := newSubscription(s, channels)
		done := make(chan error, 1)
		go func() { done <- sub.run(ctx) }()
		running := true
		defer func() {
			cancel()
			if running {
				<-done
			}
		}()
		for {
			for ev, ok := sub.queue.pop(); ok; ev, ok = sub.queue.pop() {
				if !yield(ev, nil) {
					return
				}
			}
			if !running {
				return
			}
			select {
			case <-sub.queue.ready:
			case err := <-done:
				running = false
				if err != nil {
					yieldLast(yield, &sub.queue, failed("subscribe", TablePubSub, err))
					return
				}
				if ctx.Err() != nil {
					return
				}
			}
		}
	}
}

// yieldLast hands out what still waits, and then the error.
func yieldLast(yield func(Event, error) bool, q *eventQueue, err error) {
	for ev, ok := q.pop(); ok; ev, ok = q.pop() {
		if !yield(ev, nil) {
			return
		}
	}
	yield(Event{}, err)
}

// subscription is one loop over Subscribe.
type subscription struct {
	s        *Service
	channels []string // as in Redis, without duplicates
	queue    eventQueue

	// pending are the channels that the server has not confirmed. It is nil
	// until the first confirmation of a connection. Confirmations come from
	// one goroutine at a time.
	pending map[string]bool
	lostAt  time.Time
	started bool
}

func newSubscription(s *Service, channels []string) *subscription {
	sub := &subscription{s: s, queue: newEventQueue(subscriberQueue)}
	seen := make(map[string]bool, len(channels))
	for _, c := range channels {
		if !seen[c] {
			seen[c] = true
			sub.channels = append(sub.channels, s.prefix+c)
		}
	}
	return sub
}

// run subscribes again and again until ctx ends (nil) or it cannot be mended.
func (sub *subscription) run(ctx context.Context) error {
	wait := minReconnect
	for {
		sub.pending = nil
		err := sub.s.redis.Receive(rueidis.WithOnSubscriptionHook(ctx, sub.confirmed),
			func(b madcrow.Builder) madcrow.Command { return b.Subscribe().Channel(sub.channels...).Build() },
			sub.message)
		if ctx.Err() != nil {
			return nil
		}
		if hopeless(err) {
			return err
		}
		if sub.interrupted() {
			wait = minReconnect
		}
		// Half of the wait is random, so that many subscribers do not come
		// back in the same instant.
		timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(2*wait, maxReconnect)
	}
}

// hopeless says that waiting will not help.
func hopeless(err error) bool {
	return errors.Is(err, madcrow.ErrClosed) || errors.Is(err, madcrow.ErrPermission) || errors.Is(err, madcrow.ErrConfig)
}

// confirmed is told of each channel. It runs on the reader of the connection,
// so it must not wait. Later confirmations belong to other subscribers, who
// share the connection: a new connection begins in run.
func (sub *subscription) confirmed(p rueidis.PubSubSubscription) {
	if p.Kind != "subscribe" {
		return
	}
	if sub.pending == nil {
		sub.pending = make(map[string]bool, len(sub.channels))
		for _, c := range sub.channels {
			sub.pending[c] = true
		}
	}
	if !sub.pending[p.Channel] {
		return
	}
	delete(sub.pending, p.Channel)
	if len(sub.pending) == 0 {
		ev := Event{Kind: EventSubscribed}
		if !sub.lostAt.IsZero() {
			ev.Gap = time.Since(sub.lostAt)
		}
		sub.started, sub.lostAt = true, time.Time{}
		sub.queue.push(ev)
	}
}

// interrupted reports the loss of a subscription that had begun, once.
func (sub *subscription) interrupted() bool {
	if !sub.started || !sub.lostAt.IsZero() {
		return false
	}
	sub.lostAt = time.Now()
	sub.queue.push(Event{Kind: EventInterrupted})
	return true
}

func (sub *subscription) message(m rueidis.PubSubMessage) {
	sub.queue.push(Event{Kind: EventMessage, Channel: m.Channel[len(sub.s.prefix):], Message: m.Message})
}
