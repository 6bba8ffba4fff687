package madcrow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/deadline"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/reread"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// Builder makes commands: see [Redis.B].
type Builder = rueidis.Builder

// Command is one built command, for one call: see [Redis.Do].
type Command = rueidis.Completed

// Message is a reply as rueidis has it. Absence is msg.IsNil(), never an error.
type Message = rueidis.RedisMessage

// Redis is the one connection of a process to one Redis. It connects by
// itself, keeps itself connected and says what it knows. It is safe for
// concurrent use. Make it with [Open].
type Redis struct {
	cfg Config
	log *slog.Logger
	rec Recorder // nil when no one listens: no event is built then

	topology  *topology.Topology
	listeners conn.Listeners
	attached  attached
	builder   Builder
	life      context.Context // ends with Close

	deadlines *deadline.Pool
	client    client
	subs      node.Subscriptions

	stop    context.CancelFunc
	calls   atomic.Int64 // calls on dedicated connections and subscriptions
	closing sync.Once
	closed  chan struct{}

	observing sync.Mutex
	mu        sync.Mutex
	last      Status
	watchers  map[chan Status]struct{}
}

// Open validates cfg and returns at once, connected or not: a prober goes
// on trying, and calls wait for its first result or their deadline. A wrong
// configuration is one error that lists every problem ([ErrConfig]).
//
// With Config.Require it waits for the first connection instead, up to
// Config.ConnectTimeout or the end of ctx, and fails without it; what trying
// again cannot mend, such as a wrong password, ends that wait at once. ctx
// bounds Open alone, not the connection.
func Open(ctx context.Context, cfg Config) (*Redis, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.guarded()
	if cfg.files, err = reread.New(cfg.values(), cfg.Logger); err != nil {
		return nil, configError(err)
	}
	r := &Redis{
		cfg: cfg, log: cfg.Logger, rec: cfg.Recorder,
		deadlines: deadline.New(cfg.CommandTimeout),
		closed:    make(chan struct{}),
		watchers:  map[chan Status]struct{}{},
	}
	r.last = Status{State: StateConnecting, Since: time.Now(), Mode: cfg.mode(), Address: cfg.address(), MaxConnections: cfg.MaxConnections}
	r.life, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.topology, err = topology.New(r.life, cfg.topologyConfig(&r.listeners, r.observe))
	if err != nil {
		r.stop()
		return nil, &Error{Op: "open", Kind: KindConfig, Outcome: OutcomeNotApplied, Err: err}
	}
	r.client = client{r: r}
	r.subs.Init(&r.calls)
	for _, w := range cfg.Warnings {
		r.log.Warn(w)
	}
	r.builder = r.topology.Builder
	r.topology.Start()
	if cfg.Require {
		if err := r.awaitFirst(ctx); err != nil {
			_ = r.Close(ctx)
			return nil, err
		}
	}
	return r, nil
}

// awaitFirst waits for the first connection of a Redis that is required.
func (r *Redis) awaitFirst(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ConnectTimeout)
	defer cancel()
	for st := range r.Watch(ctx) {
		if st.State == StateUp || st.State == StateDegraded {
			return nil
		}
		var e *Error
		if errors.As(st.Err, &e) && e.permanent {
			return &Error{Op: "open", Kind: e.Kind, Outcome: OutcomeNotApplied, Err: e.Err, permanent: true}
		}
	}
	_, why := r.topology.Availability()
	if why == nil {
		return &Error{Op: "open", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: fmt.Errorf("%s: %w", r.cfg.address(), fault.ErrSilent)}
	}
	return &Error{Op: "open", Kind: Kind(why.Kind), Outcome: OutcomeNotApplied, Err: fmt.Errorf("not connected within %v: %w", r.cfg.ConnectTimeout, why.Err)}
}

// Close refuses new calls, waits for those that run until ctx ends, closes the
// connections and ends every goroutine. It is safe to call twice; later calls
// wait for the first. The error is ctx's when calls had to be cut off.
func (r *Redis) Close(ctx context.Context) error {
	var err error
	r.closing.Do(func() {
		defer close(r.closed)
		r.topology.Refuse(&fault.Error{Op: "closed", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrClosed})
		r.observe()
		r.stop()
		err = r.drain(ctx)
		r.topology.Close()
		r.deadlines.Close()
	})
	<-r.closed
	return err
}

func (r *Redis) drain(ctx context.Context) error {
	r.subs.StopAll()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.calls.Load() != 0 || r.topology.Inflight() != 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Config returns the configuration with its defaults filled in and its secrets
// taken out.
func (r *Redis) Config() Config { return r.cfg.redacted() }

// Logger returns the logger of this Redis: Config.Logger, or one that discards
// all. It is never nil, and a handler that panics does no harm. Packages built
// on this one log to it unless they are given another.
func (r *Redis) Logger() *slog.Logger { return r.log }
