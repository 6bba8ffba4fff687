package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/stream"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// The races of the messages. One operation is one message that was published
// and came to every subscriber. A goroutine publishes its next one when so many
// of its own are under way: 1, which is the time of the whole way, or 8, as
// where a service publishes and does not look back.

const (
	window      = 8
	noDelivery  = 10 * time.Second
	messageSize = 128
)

func publishDeliver1(e *environment) (race, error)     { return publishRace(e, 1, 1, false) }
func publishDeliver1JSON(e *environment) (race, error) { return publishRace(e, 1, 1, true) }
func publishDeliver100(e *environment) (race, error)   { return publishRace(e, 100, 1, false) }
func publishDeliver100JSON(e *environment) (race, error) {
	return publishRace(e, 100, 1, true)
}
func publishWindow1(e *environment) (race, error)       { return publishRace(e, 1, window, false) }
func publishWindow1JSON(e *environment) (race, error)   { return publishRace(e, 1, window, true) }
func publishWindow100(e *environment) (race, error)     { return publishRace(e, 100, window, false) }
func publishWindow100JSON(e *environment) (race, error) { return publishRace(e, 100, window, true) }

// post is a typed message.
type post struct {
	From int
	Text string
}

// deliveries counts what came, by who sent it.
type deliveries struct {
	subscribers, window int

	mu   sync.Mutex
	from []*sender
}

type sender struct {
	came   atomic.Int64
	places chan struct{} // of its messages under way
}

func (d *deliveries) sender(g int) *sender {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.from) <= g {
		s := &sender{places: make(chan struct{}, d.window)}
		for range d.window {
			s.places <- struct{}{}
		}
		d.from = append(d.from, s)
	}
	return d.from[g]
}

// hearing gives a subscriber its own view of the senders, without a lock.
func (d *deliveries) hearing() func(g int) {
	var known []*sender
	return func(g int) {
		for len(known) <= g {
			known = append(known, d.sender(len(known)))
		}
		s := known[g]
		if s.came.Add(1)%int64(d.subscribers) == 0 {
			s.places <- struct{}{}
		}
	}
}

// worker publishes for goroutine g.
func (d *deliveries) worker(publish func(ctx context.Context, g int) func() error) func(int) func() error {
	return func(g int) func() error {
		s, ctx := d.sender(g), context.Background()
		for range d.window { // what is left of the round before
			<-s.places
		}
		for range d.window {
			s.places <- struct{}{}
		}
		do := publish(ctx, g)
		late := time.NewTimer(noDelivery)
		return func() error {
			select {
			case <-s.places:
			default:
				late.Reset(noDelivery)
				select {
				case <-s.places:
				case <-late.C:
					return errors.New("a message did not come")
				}
			}
			return do()
		}
	}
}

// postText is the message of a goroutine.
func postText(g int) string {
	text := fmt.Sprintf("%03d", g)
	return text + strings.Repeat("x", messageSize-len(text))
}

func senderOf(text string) int {
	return int(text[0]-'0')*100 + int(text[1]-'0')*10 + int(text[2]-'0')
}

func publishRace(e *environment, subscribers, window int, typed bool) (race, error) {
	name, what, kind := "publish-deliver-", "publish and deliver", "text"
	if window > 1 {
		name, what = "publish-window-", fmt.Sprintf("publish, %d of each goroutine under way, and deliver", window)
	}
	name += strconv.Itoa(subscribers)
	if typed {
		name, kind = name+"-json", "JSON"
	}
	r := race{name: name, what: fmt.Sprintf("%s, %d bytes of %s, to subscribers: %d", what, messageSize, kind, subscribers), cpu: true}
	channel := 0
	add := func(name string, must float64, make messages) error {
		d := &deliveries{subscribers: subscribers, window: window}
		channel++
		publish, err := make(e, d, fmt.Sprintf("%s:%d", r.name, channel))
		if err == nil {
			r.contestants = append(r.contestants, contestant{name, must, d.worker(publish)})
		}
		return err
	}
	var err error
	if typed {
		err = errors.Join(
			add("go-redis PubSub and encoding/json", 0, goRedisMessages(true)),
			add("rueidis Receive and encoding/json", 0, rueidisMessages(true)),
			add("madcrow Topic", 2.5, madcrowMessages[post](pubsub.TopicOptions[post]{}, typedPost)),
		)
	} else {
		err = errors.Join(
			add("go-redis PubSub", 0, goRedisMessages(false)),
			add("rueidis Receive", 0, rueidisMessages(false)),
			add("madcrow Topic, plain", 2.5, madcrowMessages(pubsub.TopicOptions[string]{Plain: true}, plainPost)),
			add("madcrow Topic, numbered", 2.5, madcrowMessages(pubsub.TopicOptions[string]{}, plainPost)),
		)
	}
	return r, err
}

type messages = func(e *environment, d *deliveries, channel string) (func(context.Context, int) func() error, error)

// encoded is what a service that has no typed topics does by hand.
func encoded(typed bool, g int) func() (string, error) {
	if text := postText(g); !typed {
		return func() (string, error) { return text, nil }
	}
	p := typedPost(g)
	return func() (string, error) {
		text, err := json.Marshal(p)
		return string(text), err
	}
}

func decoded(typed bool, text string) (int, error) {
	if !typed {
		return senderOf(text), nil
	}
	var p post
	err := json.Unmarshal([]byte(text), &p)
	return p.From, err
}

func plainPost(g int) string { return postText(g) }

func typedPost(g int) post {
	return post{g, strings.Repeat("x", messageSize-len(`{"From":10,"Text":""}`))}
}

// goRedisMessages: each subscriber is a PubSub of its own, which is a
// connection, and reads its channel as the documentation shows it.
func goRedisMessages(typed bool) messages {
	return func(e *environment, d *deliveries, channel string) (func(context.Context, int) func() error, error) {
		client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort(e.host, strconv.Itoa(e.port))})
		e.closers = append(e.closers, client.Close)
		for range d.subscribers {
			sub := client.Subscribe(context.Background(), channel)
			e.closers = append(e.closers, sub.Close)
			if _, err := sub.Receive(context.Background()); err != nil {
				return nil, err
			}
			hear := d.hearing()
			go func() {
				for m := range sub.Channel() {
					if g, err := decoded(typed, m.Payload); err == nil {
						hear(g)
					}
				}
			}()
		}
		return func(ctx context.Context, g int) func() error {
			text := encoded(typed, g)
			return func() error {
				m, err := text()
				if err != nil {
					return err
				}
				return client.Publish(ctx, channel, m).Err()
			}
		}, nil
	}
}

func rueidisMessages(typed bool) messages {
	return func(e *environment, d *deliveries, channel string) (func(context.Context, int) func() error, error) {
		ctx, cancel := context.WithCancel(context.Background())
		e.closers = append(e.closers, func() error { cancel(); return nil })
		for range d.subscribers {
			ready := make(chan struct{})
			subscribed := sync.OnceFunc(func() { close(ready) })
			hear := d.hearing()
			go func() {
				hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { subscribed() })
				_ = e.bare.Receive(hooked, e.bare.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) {
					if g, err := decoded(typed, m.Message); err == nil {
						hear(g)
					}
				})
			}()
			<-ready
		}
		return func(ctx context.Context, g int) func() error {
			text := encoded(typed, g)
			return func() error {
				m, err := text()
				if err != nil {
					return err
				}
				return e.bare.Do(ctx, e.bare.B().Publish().Channel(channel).Message(m).Build()).Error()
			}
		}, nil
	}
}

func madcrowMessages[T any](options pubsub.TopicOptions[T], message func(int) T) messages {
	return func(e *environment, d *deliveries, channel string) (func(context.Context, int) func() error, error) {
		bus, err := newBus(e)
		if err != nil {
			return nil, err
		}
		topic, err := pubsub.NewTopic(bus, channel, options)
		if err != nil {
			return nil, err
		}
		for range d.subscribers {
			ready := make(chan struct{})
			hear := d.hearing()
			go func() {
				_ = topic.Handle(context.Background(), func(_ context.Context, ev pubsub.Event[T]) {
					switch ev.Kind {
					case pubsub.EventSubscribed:
						close(ready)
					case pubsub.EventMessage:
						switch m := any(ev.Message).(type) {
						case string:
							hear(senderOf(m))
						case post:
							hear(m.From)
						}
					}
				})
			}()
			<-ready
		}
		return func(ctx context.Context, g int) func() error {
			m := message(g)
			return func() error {
				_, err := topic.Publish(ctx, m)
				return err
			}
		}, nil
	}
}

func newBus(e *environment) (*pubsub.Bus, error) {
	bus, err := pubsub.New(e.redis, pubsub.Options{})
	if err == nil {
		e.closers = append(e.closers, func() error { return bus.Close(context.Background()) })
	}
	return bus, err
}

// streamRace: one operation is one message that was appended, given to a worker
// and acknowledged.
func streamRace(e *environment) (race, error) {
	r := race{name: "stream", what: fmt.Sprintf("append, work on and acknowledge, %d bytes, %d of each goroutine under way", messageSize, window), cpu: true}
	var problem error
	add := func(name string, make messages) {
		d := &deliveries{subscribers: 1, window: window}
		publish, err := make(e, d, "stream:"+strconv.Itoa(len(r.contestants)))
		problem = errors.Join(problem, err)
		r.contestants = append(r.contestants, contestant{name: name, worker: d.worker(publish)})
	}
	add("watermill-redisstream, 1 subscriber", watermillStream(1))
	add("watermill-redisstream, 8 subscribers", watermillStream(8))
	add("madcrow Stream, 1 worker", madcrowStream(1))
	add("madcrow Stream, 8 workers", madcrowStream(8))
	add("madcrow Stream, 64 workers", madcrowStream(64))
	return r, problem
}

func watermillStream(subscribers int) messages {
	return func(e *environment, d *deliveries, stream string) (func(context.Context, int) func() error, error) {
		client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort(e.host, strconv.Itoa(e.port))})
		ctx, cancel := context.WithCancel(context.Background())
		e.closers = append(e.closers, func() error {
			cancel()
			return client.Close()
		})
		for range subscribers {
			sub, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: client, ConsumerGroup: "g", OldestId: "0"}, watermill.NopLogger{})
			if err != nil {
				return nil, err
			}
			list, err := sub.Subscribe(ctx, stream)
			if err != nil {
				return nil, err
			}
			hear := d.hearing()
			go func() {
				for m := range list {
					hear(senderOf(string(m.Payload)))
					m.Ack()
				}
			}()
		}
		pub, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client, DefaultMaxlen: 1_000_000}, watermill.NopLogger{})
		if err != nil {
			return nil, err
		}
		return func(_ context.Context, g int) func() error {
			text := []byte(postText(g))
			return func() error { return pub.Publish(stream, message.NewMessage(watermill.NewUUID(), text)) }
		}, nil
	}
}

func madcrowStream(workers int) messages {
	return func(e *environment, d *deliveries, name string) (func(context.Context, int) func() error, error) {
		queue, err := stream.New(e.redis, name, stream.Options[string]{})
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		e.closers = append(e.closers, func() error {
			cancel()
			return <-ended
		})
		go func() {
			ended <- queue.Work(ctx, "g", func(_ context.Context, m stream.Delivery[string]) error {
				s := d.sender(senderOf(m.Message))
				s.places <- struct{}{}
				return nil
			}, stream.WorkOptions{Workers: workers})
		}()
		return func(ctx context.Context, g int) func() error {
			text := postText(g)
			return func() error {
				_, err := queue.Publish(ctx, text)
				return err
			}
		}, nil
	}
}
