package stream

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Each failure is a line of the log, and so is each dead letter; of many within a
// short time the first are, and how many the others were.
const (
	logLines = 20
	logEvery = 10 * time.Second
)

// workLog is what one call of Work says.
type workLog struct {
	log                             *slog.Logger // with the stream and the group
	failures, dead, abandoned, back logonce.Rate
	stacks                          guard.Said // panics whose stack is in the log
}

func newWorkLog(log *slog.Logger, stream, group string) *workLog {
	w := &workLog{log: log.With("stream", stream, "group", group)}
	for _, r := range []*logonce.Rate{&w.failures, &w.dead, &w.abandoned, &w.back} {
		r.Lines, r.Every = logLines, logEvery
	}
	return w
}

// failed logs a failure that is tried again.
func (w *workLog) failed(ctx context.Context, id string, delivery int64, next time.Duration, why, stack string) {
	if !w.failures.Allow(time.Now()) {
		return
	}
	attrs := []slog.Attr{slog.String("id", id), slog.Int64("delivery", delivery), slog.Duration("next_try", next), slog.String("reason", why)}
	if stack != "" && w.stacks.First(why) {
		attrs = append(attrs, slog.String("stack", stack))
	}
	w.log.LogAttrs(ctx, slog.LevelWarn, "a message failed and is tried again", attrs...)
}

// deadLetter logs a dead letter that was made.
func (w *workLog) deadLetter(ctx context.Context, id, original string, deliveries int64, why, stack string) {
	if !w.dead.Allow(time.Now()) {
		return
	}
	attrs := []slog.Attr{slog.String("id", original), slog.String("dead_id", id), slog.Int64("deliveries", deliveries), slog.String("reason", why)}
	if stack != "" && w.stacks.First(why) {
		attrs = append(attrs, slog.String("stack", stack))
	}
	w.log.LogAttrs(ctx, slog.LevelError, "a message became a dead letter: mend the reason, then replay it", attrs...)
}

// countDropped logs how many lines were left out.
func (w *workLog) countDropped(final bool) {
	now := time.Now()
	if n := w.failures.Dropped(now, final); n > 0 {
		w.log.Warn("more messages failed and are tried again", "n", n)
	}
	if n := w.dead.Dropped(now, final); n > 0 {
		w.log.Error("more messages became dead letters", "n", n)
	}
	if n := w.abandoned.Dropped(now, final); n > 0 {
		w.log.Error("more workers ignore the end of their contexts", "n", n)
	}
	if n := w.back.Dropped(now, final); n > 0 {
		w.log.Info("more workers that ignored their time-out have returned", "n", n)
	}
}

// logAbandoned logs a worker that ignores its time-out.
func (c *consumer[T]) logAbandoned(d *delivery[T]) {
	if !c.log.abandoned.Allow(time.Now()) {
		return
	}
	c.log.log.Error("a worker ignores the end of its context: its message counts as failed, and its goroutine goes on; let it return when its context ends",
		"id", d.id, "delivery", d.number, "timeout", c.opt.Timeout)
}

// returned logs that such a worker has returned after all.
func (w *workLog) returned(id string, after time.Duration) {
	if w.back.Allow(time.Now()) {
		w.log.Info("a worker that ignored its time-out has returned", "id", id, "after", after.Round(time.Millisecond))
	}
}

// inspect looks into the error of a worker, whose methods may panic.
func inspect(err error) (stack string, permanent bool) {
	_ = guard.Apart(func() error {
		if p := (*permanentError)(nil); errors.As(err, &p) {
			permanent = true
		}
		return nil
	})
	_ = guard.Apart(func() error {
		if p := (*guard.Panic)(nil); errors.As(err, &p) {
			stack = p.Stack
		}
		return nil
	})
	return stack, permanent
}
