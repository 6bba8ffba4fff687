package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Check is a dependency that is not Redis.
type Check struct {
	// Name stands in reports and in the log. Required, and unlike the others and
	// "redis".
	Name string
	// Optional keeps Ready at 200 while the check fails. Defaults to false.
	Optional bool
	// Run returns nil when the dependency works. It is called in the background, by
	// one goroutine at a time; a panic is a failure. ctx ends after Timeout: a Run
	// that goes on is a failure from then, and is not called again before it
	// returns. Required.
	Run func(ctx context.Context) error
	// Every is the pause between two runs, at least 1 ms. Defaults to 5 s.
	Every time.Duration
	// Timeout is how long one run may take, at least 1 ms. Defaults to 1 s.
	Timeout time.Duration
}

const (
	defaultEvery   = 5 * time.Second
	defaultTimeout = time.Second
	// grace is how long a run whose context has ended may take to say why.
	grace = 50 * time.Millisecond
)

func (c *Check) fill() {
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
}

func (c *Check) check(wrong *operr.Arguments, field string, used map[string]bool) {
	wrong.Check(c.Name != "", field+"Name", "must not be empty")
	wrong.Check(c.Name == "" || !used[c.Name], field+"Name", `must differ from those of other checks and from "redis"`)
	wrong.Check(c.Run != nil, field+"Run", "must not be nil")
	wrong.Check(c.Every >= time.Millisecond, field+"Every", "must be at least 1 ms, or 0 for 5 s")
	wrong.Check(c.Timeout >= time.Millisecond, field+"Timeout", "must be at least 1 ms, or 0 for 1 s")
}

const (
	healthyWord     = "healthy"
	unavailableWord = "unavailable"

	reasonPending = "pending"
	reasonFailed  = "failed"
	reasonTimeout = "timeout"
	reasonPanic   = "panic"
)

// Result is the last result of one [Check].
type Result struct {
	Status   string `json:"status" enum:"healthy,unavailable"`
	Optional bool   `json:"optional,omitempty" doc:"The process may receive requests without it"`
	// Since is when Status began.
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty" enum:"pending,failed,timeout,panic" doc:"Why it is unavailable; pending until the first run ends"`
	Error  string    `json:"error,omitempty" doc:"The text of the error; only where details are shown"`
}

// watch runs one check. Its goroutine alone writes.
type watch struct {
	check Check
	log   *slog.Logger
	last  atomic.Pointer[Result]

	said     logonce.Reasons // reasons of this outage that are in the log
	failures int             // of this outage
}

func newWatch(c Check, log *slog.Logger) *watch {
	w := &watch{check: c, log: log}
	w.last.Store(&Result{
		Status: unavailableWord, Optional: c.Optional, Since: time.Now().UTC(),
		Reason: reasonPending, Error: "the first run has not ended yet",
	})
	return w
}

func (w *watch) healthy() bool { return w.last.Load().Status == healthyWord }

func (w *watch) result(details bool) Result {
	out := *w.last.Load()
	if !details {
		out.Error = ""
	}
	return out
}

func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.once(ctx)
		if clock.Sleep(ctx, w.check.Every) != nil {
			return
		}
	}
}

// once runs the check, and returns when it has returned: a check that hangs is not
// started again.
func (w *watch) once(life context.Context) {
	ctx, cancel := context.WithTimeout(life, w.check.Timeout)
	defer cancel()
	done := guard.Start(func() error { return w.check.Run(ctx) })
	select {
	case err := <-done:
		w.note(life, err, false)
		return
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case err := <-done:
		w.note(life, err, true)
	case <-late.C:
		w.note(life, errors.New("it has not returned yet"), true)
		<-done
	}
}

// note keeps what one run has said, and logs the begin and the end of an outage. At
// the end of the Monitor the error is that of the context, which says nothing.
func (w *watch) note(life context.Context, err error, late bool) {
	if life.Err() != nil {
		return
	}
	was := w.last.Load()
	next := Result{Status: healthyWord, Optional: w.check.Optional, Since: was.Since}
	var stack []any
	if err != nil || late {
		next.Status, next.Reason = unavailableWord, reasonFailed
		panicked := (*guard.Panic)(nil)
		switch {
		case errors.As(err, &panicked):
			next.Reason, stack = reasonPanic, []any{"stack", panicked.Stack}
		case late:
			next.Reason = reasonTimeout
			err = lateError(w.check.Timeout, err)
		}
		next.Error = guard.Text(err)
	}
	if next.Status != was.Status || was.Reason == reasonPending {
		next.Since = time.Now().UTC()
	}
	w.last.Store(&next)
	w.logChange(*was, next, stack)
}

func lateError(timeout time.Duration, err error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no result within %v", timeout)
	}
	return fmt.Errorf("no result within %v: %w", timeout, err)
}

func (w *watch) logChange(was, now Result, stack []any) {
	if now.Status == healthyWord {
		if w.said.Clear() {
			w.log.Info("health: the check passes again", "check", w.check.Name,
				"lasted", now.Since.Sub(was.Since).Round(time.Millisecond), "failures", w.failures)
		}
		w.failures = 0
		return
	}
	w.failures++
	if !w.said.First(errors.New(now.Reason)) {
		return
	}
	text := "health: a check fails, so that the process receives no requests until it passes"
	if w.check.Optional {
		text = "health: an optional check fails"
	}
	w.log.Warn(text, append([]any{"check", w.check.Name, "reason", now.Reason, "error", now.Error}, stack...)...)
}
