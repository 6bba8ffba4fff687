package guard

import (
	"context"
	"log/slog"
)

// Logger is l, whose handler may panic, end its goroutine, or be given errors
// that do: the message is logged then, without its attributes if it must be.
func Logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return nil
	}
	if _, ok := l.Handler().(handler); ok {
		return l
	}
	return slog.New(handler{l.Handler()})
}

type handler struct{ of slog.Handler }

func (h handler) Enabled(ctx context.Context, level slog.Level) (on bool) {
	_ = Call(func() error {
		on = h.of.Enabled(ctx, level)
		return nil
	})
	return on
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	err := Apart(func() error { return h.of.Handle(ctx, r) })
	if err == nil || !isOurs(err) {
		return err
	}
	bare := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	bare.AddAttrs(slog.String("attributes", "cannot be logged: "+err.Error()))
	return Apart(func() error { return h.of.Handle(ctx, bare) })
}

func isOurs(err error) bool {
	_, panicked := err.(*Panic) //nolint:errorlint // what Apart returned itself
	return panicked || err == ErrGoexit
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func() slog.Handler { return h.of.WithAttrs(attrs) })
}

func (h handler) WithGroup(name string) slog.Handler {
	return h.with(func() slog.Handler { return h.of.WithGroup(name) })
}

func (h handler) with(derive func() slog.Handler) slog.Handler {
	next := h
	_ = Call(func() error {
		next.of = derive()
		return nil
	})
	return next
}
