// Package conformance is one small application that is built with every
// framework, and what it promises, asked over HTTP with a real Redis and then
// without it. [Kit] says which routes the application has.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/internal/sealed"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
)

// Kit is what the application is made of. Its routes, all answered with a
// [Reply] as JSON unless they say otherwise:
//
//	GET  /plain            Plain, needs no Redis                → Greet
//	GET  /store/{key}      Store, required                      → Store.Read
//	GET  /optional         Store, optional                      → ReadOptional
//	GET  /caller           Caller and Greeting, both per request → Called
//	GET  /session          inside Session                       → Visits
//	POST /session          inside Session                       → Visit
//	POST /session/fail     inside Session                       → Visit, then ErrForeign
//	POST /session/empty    inside Session                       → Visit, then 204
//	POST /login/{user}     inside Session                       → Login
//	POST /login/{user}/panic inside Session                     → Login, then panic(Secret)
//	POST /rotate           inside Session                       → Rotate
//	GET  /limited          inside Limited                       → Greet
//	GET  /fail/{kind}                                           → Fail
//	GET  /panic                                                 → panic(Secret)
//	POST /validate         an [In] as JSON                      → Validate
//	GET  /stream           inside Session: Visit, then the text "one\n", flushed,
//	                       Hold(), then "two\n"
//	GET  /health/live, /health/ready, /health
//
// Everything is inside Recover.
type Kit struct {
	Redis    *madcrow.Redis
	Set      *inject.Set
	Sessions *session.Manager[Data]
	Health   *health.Monitor

	Session, Limited, Recover func(http.Handler) http.Handler

	Store    inject.Dep[*Store]
	Plain    inject.Dep[Greeter]
	Caller   inject.Dep[Caller]
	Greeting inject.Dep[Greeting]

	draining, built atomic.Int64
	release         chan struct{}
	theStore        *Store
	server          *madcrowtest.Server
	log             *logs
}

// The types of the application.
type (
	// Data is kept in a session.
	Data struct{ Visits int }
	// In is a body.
	In struct {
		Name string `json:"name" minLength:"1"`
	}
	// Reply is every answer.
	Reply struct {
		Value     string `json:"value"`
		Found     bool   `json:"found"`
		Available bool   `json:"available"`
		Visits    int    `json:"visits"`
		User      string `json:"user"`
		Built     int64  `json:"built"`
	}
	// Greeter needs no Redis.
	Greeter struct{ Word string }
	// Caller is who asks, by the header X-User.
	Caller struct {
		Name  string
		Built int64
	}
	// Greeting is made of the Caller.
	Greeting struct {
		Text  string
		Built int64
	}
	// Store reads from Redis.
	Store struct {
		svc *service.Service
		ran atomic.Int64
	}
)

// Secret must never reach a caller.
const Secret = "dial tcp 127.0.0.1:6379: user:alice:token"

const prefix = "confx:"

// ErrForeign is an error that does not know its answer; a rule does.
var ErrForeign = errors.New("foreign: " + Secret)

func newKit(t *testing.T) *Kit {
	t.Helper()
	k := &Kit{server: madcrowtest.StartRedis(t), release: make(chan struct{}), log: &logs{}}
	cfg := k.server.Config()
	cfg.Require, cfg.KeyPrefix = true, prefix
	cfg.Logger = slog.New(slog.NewJSONHandler(k.log, nil)) // everything logs there
	var err error
	if k.Redis, err = madcrow.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Redis.Close(context.Background()) })
	if k.Health, err = health.New(k.Redis, health.Options{Draining: func() bool { return k.draining.Load() != 0 }}); err != nil {
		t.Fatal(err)
	}
	k.Set = inject.New(k.Redis, inject.Options{Rules: []problem.Rule{
		problem.Is(ErrForeign, problem.Problem{Status: http.StatusGone, Code: "FOREIGN", Message: "It is gone"}),
	}})
	k.Recover = k.Set.Problems().Recover
	if k.Sessions, err = session.New(k.Redis, "web", session.Options[Data]{InsecureCookie: true}); err != nil {
		t.Fatal(err)
	}
	k.Session = k.Sessions.Middleware(madcrow.FailClosed)
	limit, err := ratelimit.New(k.Redis, "conformance", ratelimit.Options{Rate: ratelimit.PerMinute(3), FailPolicy: madcrow.FailClosed})
	if err != nil {
		t.Fatal(err)
	}
	k.Limited = ratelimit.Middleware(limit, ratelimit.ByHeader("X-Client"), ratelimit.MiddlewareOptions{})

	k.theStore = &Store{svc: service.New(k.Redis, service.Options{})}
	k.Store = inject.Value(k.Set, k.theStore)
	k.Plain = inject.Plain(k.Set, Greeter{"hello"})
	k.Caller = inject.PerRequestPlain(k.Set, func(r *http.Request) (Caller, error) {
		name := r.Header.Get("X-User")
		if name == "" {
			return Caller{}, problem.New(http.StatusUnauthorized, "WHO", "Say who you are")
		}
		return Caller{name, k.built.Add(1)}, nil
	})
	k.Greeting = inject.PerRequestPlain(k.Set, func(r *http.Request) (Greeting, error) {
		c, err := inject.Get(r, k.Caller)
		return Greeting{"hello " + c.Name, c.Built}, err
	})
	return k
}

// Greet is a handler.
func Greet(g Greeter) Reply { return Reply{Value: g.Word} }

// Read is a handler.
func (s *Store) Read(ctx context.Context, key string) (Reply, error) {
	s.ran.Add(1)
	if s.svc == nil {
		return Reply{Value: "overridden"}, nil
	}
	v, found, err := s.svc.GetCache(ctx, key)
	return Reply{Value: v, Found: found}, err
}

// ReadOptional is a handler.
func ReadOptional(s inject.Optional[*Store]) Reply {
	got, ok := s.Get()
	return Reply{Available: ok && got != nil && s.Err() == nil}
}

// Called is a handler.
func Called(c Caller, g Greeting) Reply {
	if c.Built != g.Built {
		return Reply{Value: "built twice"}
	}
	return Reply{Value: g.Text, User: c.Name, Built: c.Built}
}

// Visits is a handler.
func (k *Kit) Visits(ctx context.Context) (Reply, error) {
	s := k.Sessions.From(ctx)
	data, found, err := s.Get(ctx)
	if err != nil {
		return Reply{}, err
	}
	user, err := s.User(ctx)
	return Reply{Visits: data.Visits, Found: found, User: user}, err
}

// Visit is a handler.
func (k *Kit) Visit(ctx context.Context) (Reply, error) {
	err := k.Sessions.From(ctx).Update(ctx, func(d *Data) error { d.Visits++; return nil })
	if err != nil {
		return Reply{}, err
	}
	return k.Visits(ctx)
}

// Login is a handler.
func (k *Kit) Login(ctx context.Context, user string) (Reply, error) {
	if err := k.Sessions.From(ctx).Login(ctx, user); err != nil {
		return Reply{}, err
	}
	return k.Visits(ctx)
}

// Rotate is a handler.
func (k *Kit) Rotate(ctx context.Context) (Reply, error) {
	if err := k.Sessions.From(ctx).Rotate(ctx); err != nil {
		return Reply{}, err
	}
	return k.Visits(ctx)
}

// Validate is a handler.
func Validate(in In) (Reply, error) {
	if in.Name == "" {
		return Reply{}, problem.Validation(problem.FieldError{Field: "body.name", Message: "expected length >= 1"})
	}
	return Reply{Value: in.Name}, nil
}

// Hold waits until the test has read what was flushed.
func (k *Kit) Hold() {
	select {
	case <-k.release:
	case <-time.After(10 * time.Second):
	}
}

type sold struct{}

func (sold) Error() string { return "sold: " + Secret }
func (sold) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusConflict, Code: "SOLD", Message: "It is sold"}
}

type failure struct {
	status int
	code   string
	make   func(context.Context, *Kit) error
}

// failures are the kinds of /fail, most as they come from Redis itself.
var failures = map[string]failure{
	"plain":    {500, problem.CodeInternal, func(context.Context, *Kit) error { return errors.New(Secret) }},
	"sold":     {409, "SOLD", func(context.Context, *Kit) error { return fmt.Errorf("outer: %w", sold{}) }},
	"foreign":  {410, "FOREIGN", func(context.Context, *Kit) error { return fmt.Errorf("outer: %w", ErrForeign) }},
	"bad":      {400, "BAD", func(context.Context, *Kit) error { return problem.New(400, "BAD", "Not so") }},
	"notfound": {404, "NOT_FOUND", func(context.Context, *Kit) error { return cache.Fail(sealed.Key{}, "get", "c", cache.ErrNotFound) }},
	"late": {429, "QUOTA_EXCEEDED", func(ctx context.Context, k *Kit) error {
		limit, err := ratelimit.New(k.Redis, "late", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for range 2 {
			if _, err = limit.Wait(ctx, "anyone"); err != nil {
				return err
			}
		}
		return nil
	}},
	"ended": {401, "SESSION_ENDED", func(context.Context, *Kit) error { return session.ErrEnded }},
	"away": {503, "REDIS_UNAVAILABLE", func(context.Context, *Kit) error {
		return &madcrow.Error{Op: "inject.get", Kind: madcrow.KindUnavailable, Outcome: madcrow.OutcomeNotApplied, Err: errors.New(Secret)}
	}},
	"wrongtype": {409, "REDIS_WRONG_TYPE", func(ctx context.Context, k *Kit) error {
		err := k.Redis.Do(ctx, k.Redis.B().Get().Key("user:alice:list").Build()).Err()
		return err
	}},
	"server": {500, "REDIS_ERROR", func(ctx context.Context, k *Kit) error {
		err := k.Redis.Do(ctx, k.Redis.B().Arbitrary("SET").Keys("user:alice:token").Args("v", "EX", "-1").Build()).Err()
		return err
	}},
	"timeout": {504, "REDIS_TIMEOUT", func(ctx context.Context, k *Kit) error {
		ctx, cancel := context.WithDeadline(ctx, time.Unix(0, 0))
		defer cancel()
		err := k.Redis.Do(ctx, k.Redis.B().Get().Key("user:alice:token").Build()).Err()
		return err
	}},
	"key": {422, problem.CodeValidation, func(ctx context.Context, k *Kit) error {
		_, _, err := service.New(k.Redis, service.Options{}).GetCache(ctx, "")
		return err
	}},
}

// Fail is a handler that never succeeds.
func (k *Kit) Fail(ctx context.Context, kind string) error {
	f, ok := failures[kind]
	if !ok {
		return fmt.Errorf("no kind %q", kind)
	}
	return f.make(ctx, k)
}

// logs collects what was logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

// lines is how many lines have a text.
func (l *logs) lines(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.text.Bytes()) {
		if bytes.Contains(line, []byte(text)) {
			n++
		}
	}
	return n
}
