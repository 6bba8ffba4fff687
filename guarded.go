package madcrow

import (
	"context"
	"log/slog"
	"net"

	"github.com/madcrow-go/madcrow/internal/guard"
)

// guarded is the configuration with its functions made harmless: they run in
// goroutines that no one else can recover, and that others wait for.
func (c Config) guarded() Config {
	c.Logger = guard.Logger(c.Logger)
	log, said := c.Logger, &guard.Said{}
	switch rec := c.Recorder.(type) {
	case nil:
	case NopRecorder:
		c.Recorder = nil // no event is built for it
	case Tracer:
		c.Recorder = guardedTracer{guardedRecorder{rec: c.Recorder, log: log, said: said}, rec}
	default:
		c.Recorder = guardedRecorder{rec: rec, log: log, said: said}
	}
	if dial := c.Dialer; dial != nil {
		c.Dialer = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = guard.Apart(func() (err error) {
				conn, err = dial(ctx, network, address)
				return err
			})
			sayPanic(log, said, "Config.Dialer", err)
			return conn, err
		}
	}
	if ask := c.Credentials; ask != nil {
		c.Credentials = func(ctx context.Context, r CredentialsRequest) (creds Credentials, err error) {
			err = guard.Apart(func() (err error) {
				creds, err = ask(ctx, r)
				return err
			})
			sayPanic(log, said, "Config.Credentials", err)
			return creds, err
		}
	}
	return c
}

// sayPanic logs a panic with its stack, each once.
func sayPanic(log *slog.Logger, said *guard.Said, who string, err error) {
	if p, ok := err.(*guard.Panic); ok && said.First(who+p.Error()) { //nolint:errorlint // as guard returned it
		log.Error("a function that was given to madcrow panicked", "function", who, "reason", p.Error(), "stack", p.Stack)
	}
}

// guardedRecorder is a recorder that may panic. What is recorded often is
// recorded where it happens: it must not end the goroutine.
type guardedRecorder struct {
	rec  Recorder
	log  *slog.Logger
	said *guard.Said
}

func (g guardedRecorder) recovered(p any) {
	if p != nil {
		sayPanic(g.log, g.said, "Config.Recorder", guard.Recovered(p))
	}
}

func (g guardedRecorder) Operation(ctx context.Context, o Operation) {
	defer func() { g.recovered(recover()) }()
	g.rec.Operation(ctx, o)
}

func (g guardedRecorder) Event(ctx context.Context, e Event) {
	defer func() { g.recovered(recover()) }()
	g.rec.Event(ctx, e)
}

func (g guardedRecorder) Dial(ctx context.Context, d Dial) {
	err := guard.Apart(func() error {
		g.rec.Dial(ctx, d)
		return nil
	})
	sayPanic(g.log, g.said, "Config.Recorder", err)
}

func (g guardedRecorder) StateChange(from, to State) {
	err := guard.Apart(func() error {
		g.rec.StateChange(from, to)
		return nil
	})
	sayPanic(g.log, g.said, "Config.Recorder", err)
}

// guardedTracer is a guardedRecorder that is also a Tracer.
type guardedTracer struct {
	guardedRecorder
	tracer Tracer
}

func (g guardedTracer) Start(ctx context.Context, s Span) (within context.Context, end func(error)) {
	within, end = ctx, func(error) {} // after a panic
	defer func() { g.recovered(recover()) }()
	started, done := g.tracer.Start(ctx, s)
	if started == nil {
		started = ctx
	}
	return started, func(err error) {
		defer func() { g.recovered(recover()) }()
		done(err)
	}
}
