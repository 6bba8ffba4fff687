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
	if rec := c.Recorder; rec != nil {
		if _, nop := rec.(NopRecorder); !nop {
			c.Recorder = guardedRecorder{rec: rec, log: log, said: said}
		}
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

func (g guardedRecorder) Operation(o Operation) {
	defer func() { g.recovered(recover()) }()
	g.rec.Operation(o)
}

func (g guardedRecorder) Event(pkg, name string, n int) {
	defer func() { g.recovered(recover()) }()
	g.rec.Event(pkg, name, n)
}

func (g guardedRecorder) Dial(d Dial) {
	err := guard.Apart(func() error {
		g.rec.Dial(d)
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
