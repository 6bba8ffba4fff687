package pubsub

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// Options says how a bus works. The zero value works.
type Options struct {
	// Outbox is how many messages wait here while Redis is away; beyond it
	// publishing is [ErrOutboxFull]. Defaults to 0: publishing is an error.
	Outbox int
	// OutboxBytes bounds their size together, as they are sent. Defaults to 64
	// MiB.
	OutboxBytes int
	// QueueBytes bounds what waits for each subscriber, in bytes as it came,
	// beside their number ([WithQueue]): what comes beyond it is dealt with by
	// the same rule ([WithOverflow]). One message may always wait. Defaults to
	// 16 MiB.
	QueueBytes int
	// Probe is how long nothing may come on a connection that is subscribed
	// before it is tried, by a message of the bus to itself; when that does not
	// come within a third of it, the connection is made anew. From 100 ms to a
	// day; -1 is never. Defaults to 15 seconds.
	Probe time.Duration
	// Logger defaults to that of the Redis.
	Logger *slog.Logger
}

// Bus is what the topics of a process share: its subscriptions. It is safe for
// concurrent use. Make it with [New].
type Bus struct {
	r         *madcrow.Redis
	rec       madcrow.Recorder // nil: nobody listens
	log       *slog.Logger
	prefix    string
	processID string // names this process in envelopes

	born          time.Time
	probeAfter    time.Duration // Options.Probe
	silenceLimit  time.Duration // how long a dead connection may go unnoticed
	maxMessage    int           // how large a message may be
	queueBytes    int           // Options.QueueBytes
	bulkThreshold int           // how large is large

	draining atomic.Bool // nothing more is published
	streams  atomic.Bool // the server knows what streams need

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu           sync.Mutex
	shared       map[channelKey]*sharedSub
	probedSubs   int                 // feeds that are no probes
	stopProber   context.CancelFunc  // ends the prober
	subConns     map[string]*subConn // by node
	numbers      map[string]*numbers
	numberResets int // how often numbers were forgotten
	closed       bool
	outbox       *outbox
	subscribeSem chan struct{} // bounds how many subscribe at the same time
}

// subscribeTurns is how many channels subscribe at the same time after the
// connection was made again.
const maxSubscribing = 512

// New makes a bus on r, which the bus does not close. Close it before the
// Redis.
func New(r *madcrow.Redis, options Options) (*Bus, error) {
	if options.Outbox < 0 || options.Outbox > 10_000_000 {
		return nil, &ValidationError{Field: "Outbox", Message: "must be from 0 to 10000000"}
	}
	if options.OutboxBytes == 0 {
		options.OutboxBytes = 64 << 20
	}
	if options.QueueBytes == 0 {
		options.QueueBytes = 16 << 20
	}
	if options.OutboxBytes < 1 || options.QueueBytes < 1 {
		return nil, &ValidationError{Field: "options", Message: "OutboxBytes and QueueBytes must be at least 1"}
	}
	if options.Probe == 0 {
		options.Probe = 15 * time.Second
	}
	if options.Probe != -1 && (options.Probe < 100*time.Millisecond || options.Probe > 24*time.Hour) {
		return nil, &ValidationError{Field: "Probe", Message: "must be from 100ms to 24h, or -1"}
	}
	cfg := r.Config()
	b := &Bus{
		r: r, log: options.Logger, prefix: cfg.KeyPrefix, processID: rand.Text()[:12],
		born: time.Now(), probeAfter: options.Probe, maxMessage: cfg.MaxValueSize, queueBytes: options.QueueBytes, bulkThreshold: cfg.BulkThreshold, silenceLimit: 2*time.Second + max(time.Second, cfg.CommandTimeout),
		shared: map[channelKey]*sharedSub{}, subConns: map[string]*subConn{}, numbers: map[string]*numbers{},
		subscribeSem: make(chan struct{}, maxSubscribing),
	}
	if b.log == nil {
		b.log = cfg.Logger
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.log = guard.Logger(b.log)
	if _, nobody := r.Recorder().(madcrow.NopRecorder); !nobody {
		b.rec = r.Recorder()
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if options.Outbox > 0 {
		b.outbox = newOutbox(b, options.Outbox, options.OutboxBytes)
	}
	return b, nil
}

// Close refuses what is published from now on, waits until ctx ends for what is
// in the outbox to be sent, if Redis is there, and ends every subscription. What
// is not sent is lost, and the error says how much that is.
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
	b.wg.Wait()
	return err
}

func (b *Bus) event(name string, n int) {
	if b.rec != nil {
		b.rec.Event("pubsub", name, n)
	}
}

// checkChannel bounds a name.
func checkChannel(field, name string) error {
	if message := keys.CheckChannelLength(name); message != "" {
		return &ValidationError{Field: field, Message: message}
	}
	return nil
}

// checkPublic is for what is the name of a channel, or a pattern, as it is.
func (b *Bus) checkPublic(field, name string, reserved bool) error {
	if reserved {
		return checkChannel(field, name)
	}
	if message := keys.CheckChannel(b.prefix, name); message != "" {
		return &ValidationError{Field: field, Message: message}
	}
	return nil
}
