package pubsub

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Options says how a bus works. The zero value works.
type Options struct {
	// Outbox is how many messages, of a [Topic] or a [Recoverable], wait in this
	// process while Redis is away; Publish then is [ErrQueued], and beyond that
	// [ErrOutboxFull]. They are sent in the order in which they came. A process that
	// ends loses them: Close waits for them while Redis is there. Defaults to 0:
	// publishing is an error.
	Outbox int
	// OutboxBytes bounds their sizes together, as they are sent. Defaults to 64
	// MiB.
	OutboxBytes int
	// QueueBytes bounds the messages that wait for each subscriber in bytes, as
	// [WithQueue] bounds their number; [WithOverflow] rules both. One message may
	// always wait. Defaults to 16 MiB.
	QueueBytes int
	// Probe is how long a subscribed connection may be silent before it is
	// tested: the bus sends a message to itself, and replaces the connection when
	// that does not arrive within a third of Probe. From 100 ms to a day; -1 is
	// never. Defaults to 15 seconds.
	Probe time.Duration
	// Logger defaults to that of the Redis.
	Logger *slog.Logger
}

// Bus holds what the topics of a process share: their subscriptions and the
// outbox. It is safe for concurrent use. Make it with [New].
type Bus struct {
	r         *madcrow.Redis
	events    events.Source
	log       *slog.Logger
	prefix    string // Config.KeyPrefix
	processID string // the publisher in envelopes

	start         time.Time     // times of subConn are counted from here
	probeAfter    time.Duration // Options.Probe
	silenceLimit  time.Duration // how long a dead connection may go unnoticed
	maxMessage    int           // Config.MaxValueSize
	queueBytes    int           // Options.QueueBytes
	bulkThreshold int           // Config.BulkThreshold

	outbox   *outbox       // nil without Options.Outbox
	draining atomic.Bool   // nothing more is published
	slots    chan struct{} // one for each channel that is being subscribed to

	ctx    context.Context // of all goroutines; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu           sync.Mutex
	closed       bool
	shared       map[channelKey]*sharedSub
	probedSubs   int                // how many of them are no probes
	stopProber   context.CancelFunc // nil while no prober runs
	subConns     map[string]*subConn
	numbers      map[string]*numbers // by channel
	numberResets int                 // how often numbers were dropped
}

// maxSubscribing is how many channels subscribe at the same time after the
// connection was made again.
const maxSubscribing = 512

// New makes a bus on r, which the bus does not close. Close the bus before the
// Redis.
func New(r *madcrow.Redis, options Options) (*Bus, error) {
	if options.OutboxBytes == 0 {
		options.OutboxBytes = 64 << 20
	}
	if options.QueueBytes == 0 {
		options.QueueBytes = 16 << 20
	}
	if options.Probe == 0 {
		options.Probe = 15 * time.Second
	}
	var wrong operr.Arguments
	wrong.Check(options.Outbox >= 0 && options.Outbox <= 10_000_000, "Options.Outbox", "must be from 0 to 10000000")
	wrong.Check(options.OutboxBytes >= 1, "Options.OutboxBytes", "must be at least 1")
	wrong.Check(options.QueueBytes >= 1, "Options.QueueBytes", "must be at least 1")
	wrong.Check(options.Probe == -1 || options.Probe >= 100*time.Millisecond && options.Probe <= 24*time.Hour, "Options.Probe", "must be from 100ms to 24h, or -1")
	if err := fail.Arguments("new", "", wrong); err != nil {
		return nil, err
	}
	cfg := r.Config()
	b := &Bus{
		r: r, events: events.Of(r, ""), log: options.Logger, prefix: cfg.KeyPrefix, processID: rand.Text()[:12],
		start: time.Now(), probeAfter: options.Probe, maxMessage: cfg.MaxValueSize, queueBytes: options.QueueBytes, bulkThreshold: cfg.BulkThreshold, silenceLimit: 2*time.Second + max(time.Second, cfg.CommandTimeout),
		shared: map[channelKey]*sharedSub{}, subConns: map[string]*subConn{}, numbers: map[string]*numbers{},
		slots: make(chan struct{}, maxSubscribing),
	}
	if b.log == nil {
		b.log = r.Logger()
	}
	b.log = guard.Logger(b.log)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if options.Outbox > 0 {
		b.outbox = newOutbox(b, options.Outbox, options.OutboxBytes)
	}
	return b, nil
}

// Close refuses further messages, waits until ctx ends for the messages of the
// outbox to be sent, if Redis is there, and ends every subscription. Messages that
// are not sent are lost; the error says how many.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	if again {
		return nil
	}
	b.draining.Store(true)
	var err error
	if b.outbox != nil {
		if n := b.outbox.drain(ctx); n > 0 {
			err = fmt.Errorf("pubsub: %d messages were not sent: %w", n, ErrClosed)
		}
	}
	b.cancel()
	if b.outbox != nil {
		b.outbox.queue.Close()
	}
	b.wg.Wait()
	return err
}

// event reports an event of a topic, by its name.
func (b *Bus) event(ctx context.Context, t madcrow.EventType, name string, n int) {
	if b.events.Listened() {
		b.events.Send(ctx, madcrow.Event{Type: t, Name: name, N: n})
	}
}

// topicName is the name of a topic by its channel, which may be that of a
// [Recoverable].
func (b *Bus) topicName(channel string) string {
	name := strings.TrimPrefix(channel, b.prefix)
	if encoded, ok := strings.CutPrefix(name, historyPrefix); ok {
		if encoded, ok = strings.CutSuffix(encoded, historySuffix); ok {
			return encoded
		}
	}
	return name
}

// checkLength bounds the name of a topic.
func checkLength(op, argument, name string) error {
	if message := keys.CheckChannelLength(name); message != "" {
		return fail.Argument(op, "", argument, message)
	}
	return nil
}

// checkPublic is for a name that is that of a channel, or a pattern, as it is.
func (b *Bus) checkPublic(op, argument, name string, reserved bool) error {
	if reserved {
		return checkLength(op, argument, name)
	}
	if message := keys.CheckChannel(b.prefix, name); message != "" {
		return fail.Argument(op, "", argument, message)
	}
	return nil
}
