package health

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

// Options of [New]. The zero value works: Redis is required, and there are no other
// checks.
type Options struct {
	// Optional is for a service that works without Redis: while Redis is away,
	// Ready answers 200 and says "degraded". Defaults to false: Ready answers 503.
	Optional bool
	// Checks are those of other dependencies. They run in the background from New
	// on. Defaults to none.
	Checks []Check
	// Draining returns true when the process is about to end: Ready then answers
	// 503. It is called for each request and must not block. Defaults to never.
	Draining func() bool
	// Details shows addresses, versions and the texts of errors in [Report]. Never
	// set it on a public route. Defaults to false.
	Details bool
	// Note is shown with Redis, unless Redis has a note of its own. Defaults to none.
	Note string
	// Logger receives a warning when a check begins to fail, and a line when it
	// passes again. Defaults to that of the Redis.
	Logger *slog.Logger
}

// Monitor knows the state of Redis and of the checks. It is safe for concurrent use.
// Make it with [New].
type Monitor struct {
	r       *madcrow.Redis
	opt     Options
	watches []*watch

	life context.Context
	stop context.CancelFunc
	runs sync.WaitGroup
}

var fail = operr.Maker{Package: "health"}

// New starts the checks and returns at once. Redis is not asked. A mistake in the
// options is a [*madcrow.ArgumentError] that lists all of them. Close the Monitor
// when the process ends; without checks that is not needed.
func New(r *madcrow.Redis, options Options) (*Monitor, error) {
	m := &Monitor{r: r, opt: options}
	log := r.Logger()
	if options.Logger != nil {
		log = guard.Logger(options.Logger)
	}
	if m.opt.Draining == nil {
		m.opt.Draining = func() bool { return false }
	}
	var wrong operr.Arguments
	names := map[string]bool{redisName: true}
	for i, c := range options.Checks {
		c.fill()
		c.check(&wrong, "Checks["+strconv.Itoa(i)+"].", names)
		names[c.Name] = true
		m.watches = append(m.watches, newWatch(c, log))
	}
	if err := fail.Arguments("new", "", wrong); err != nil {
		return nil, err
	}
	m.life, m.stop = context.WithCancel(context.Background())
	for _, w := range m.watches {
		m.runs.Go(func() { w.run(m.life) })
	}
	return m, nil
}

// Close ends the checks: their contexts end, and Close waits for those that run
// until ctx ends; the error is then ctx's. Ready answers 503 from now on. The Redis
// stays open. It is safe to call twice.
func (m *Monitor) Close(ctx context.Context) error {
	m.stop()
	done := make(chan struct{})
	go func() { m.runs.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// redisName is the name of Redis among the services of a [Report].
const redisName = "redis"

// notReady is why Ready does not answer 200.
func (m *Monitor) notReady() error {
	switch {
	case m.opt.Draining(), m.life.Err() != nil:
		return away("DRAINING", "The server is shutting down")
	case !m.opt.Optional && !m.r.Available():
		return away("REDIS_UNAVAILABLE", "Redis is not available")
	}
	for _, w := range m.watches {
		if !w.check.Optional && !w.healthy() {
			return away("CHECK_FAILED", "A dependency is not available: "+w.check.Name)
		}
	}
	return nil
}

func away(code, message string) error {
	return problem.With(problem.Problem{Status: http.StatusServiceUnavailable, Code: code, Message: message, RetryAfter: time.Second})
}

// unavailable are the names of what does not work, Redis first.
func (m *Monitor) unavailable() (names []string) {
	if !m.r.Available() {
		names = append(names, redisName)
	}
	for _, w := range m.watches {
		if !w.healthy() {
			names = append(names, w.check.Name)
		}
	}
	return names
}

// Report returns the body of [Monitor.Detail].
func (m *Monitor) Report() Report {
	out := Report{Status: "healthy", Services: map[string]string{}, Redis: stateOf(m.r.Status(), m.r.Available(), m.opt.Details)}
	if out.Redis.Note == "" {
		out.Redis.Note = m.opt.Note
	}
	add := func(name string, healthy bool) {
		out.Services[name] = healthyWord
		if !healthy {
			out.Services[name], out.Status = unavailableWord, "degraded"
		}
	}
	add(redisName, out.Redis.Available)
	for _, w := range m.watches {
		res := w.result(m.opt.Details)
		add(w.check.Name, res.Status == healthyWord)
		if out.Checks == nil {
			out.Checks = map[string]Result{}
		}
		out.Checks[w.check.Name] = res
	}
	return out
}
