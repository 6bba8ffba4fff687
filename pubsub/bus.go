package pubsub

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"

	"github.com/madcrow-go/madcrow"
)

// Options says how a bus works. The zero value works.
type Options struct {
	// Outbox is how many messages wait here while Redis is away; beyond it
	// publishing is [ErrOutboxFull]. Defaults to 0: publishing is an error.
	Outbox int
	// Logger defaults to that of the Redis.
	Logger *slog.Logger
}

// Bus is what the topics of a process share: its subscriptions. It is safe for
// concurrent use. Make it with [New].
type Bus struct {
	r      *madcrow.Redis
	rec    madcrow.Recorder // nil: nobody listens
	log    *slog.Logger
	prefix string
	node   string // names this process in envelopes

	life context.Context
	stop context.CancelFunc
	busy sync.WaitGroup

	mu      sync.Mutex
	feeds   map[feedKey]*feed
	numbers map[string]*numbers
	closed  bool
	outbox  *outbox
	turns   chan struct{} // bounds how many subscribe at the same time
}

// subscribeTurns is how many channels subscribe at the same time after the
// connection was made again.
const subscribeTurns = 512

// New makes a bus on r, which the bus does not close. Close it before the
// Redis.
func New(r *madcrow.Redis, options Options) (*Bus, error) {
	if options.Outbox < 0 || options.Outbox > 10_000_000 {
		return nil, &ValidationError{Field: "Outbox", Message: "must be from 0 to 10000000"}
	}
	cfg := r.Config()
	b := &Bus{
		r: r, log: options.Logger, prefix: cfg.KeyPrefix, node: rand.Text()[:12],
		feeds: map[feedKey]*feed{}, numbers: map[string]*numbers{}, turns: make(chan struct{}, subscribeTurns),
	}
	if b.log == nil {
		b.log = cfg.Logger
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if _, nobody := r.Recorder().(madcrow.NopRecorder); !nobody {
		b.rec = r.Recorder()
	}
	b.life, b.stop = context.WithCancel(context.Background())
	if options.Outbox > 0 {
		b.outbox = newOutbox(b, options.Outbox)
	}
	return b, nil
}

// Close ends every subscription, and waits until ctx ends for what is in the
// outbox to be sent, if Redis is there. What is not sent is lost, and the error
// says how much that is.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	if again {
		return nil
	}
	var err error
	if b.outbox != nil {
		if n := b.outbox.drain(ctx); n > 0 {
			err = fmt.Errorf("pubsub: %d messages were not sent: %w", n, ErrClosed)
		}
	}
	b.stop()
	b.busy.Wait()
	return err
}

func (b *Bus) event(name string, n int) {
	if b.rec != nil {
		b.rec.Event("pubsub", name, n)
	}
}

const maxChannel = 1024

func checkChannel(field, name string) error {
	if name == "" || len(name) > maxChannel {
		return &ValidationError{Field: field, Message: fmt.Sprintf("must have 1 to %d bytes", maxChannel)}
	}
	return nil
}
