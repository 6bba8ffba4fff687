package semaphore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/semaphore"
)

func TestMiddleware_HoldsALeaseWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	cfg := config
	cfg.KeyPrefix, cfg.Logger = t.Name()+":", slog.New(slog.NewTextHandler(&log, nil))
	s := must[*semaphore.Semaphore](t)(semaphore.New(openConfig(t, cfg), "exports", semaphore.Options{
		Limit: 1, FailPolicy: madcrow.FailClosed, DeniedStatus: http.StatusServiceUnavailable,
	}))
	entered, leave := make(chan context.Context), make(chan struct{})
	slow := semaphore.Middleware(s, semaphore.All, semaphore.MiddlewareOptions{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- r.Context()
		select {
		case <-leave:
		case <-r.Context().Done():
		}
	}))
	ask := func(h http.Handler, ctx context.Context) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/exports", nil))
		return w
	}
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- ask(slow, t.Context()) }()
	<-entered
	w := ask(slow, t.Context())
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "SEMAPHORE_BUSY") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if id := strings.Split(strings.SplitN(w.Body.String(), `"error_id":"`, 2)[1], `"`)[0]; !strings.Contains(log.String(), id) {
		t.Errorf("%s is in no log: %s", id, log.String())
	}
	waiting := semaphore.Middleware(s, semaphore.All, semaphore.MiddlewareOptions{MaxWait: 10 * time.Second})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	second := make(chan *httptest.ResponseRecorder)
	go func() { second <- ask(waiting, t.Context()) }()
	time.Sleep(50 * time.Millisecond)
	leave <- struct{}{}
	if w := <-first; w.Code != 200 {
		t.Errorf("the first: %d", w.Code)
	}
	if w := <-second; w.Code != 204 {
		t.Errorf("the one that waited: %d %s", w.Code, w.Body)
	}

	// The request ends: its work ends, and its lease is free.
	ctx, cancel := context.WithCancel(t.Context())
	go func() { first <- ask(slow, ctx) }()
	inner := <-entered
	cancel()
	<-inner.Done()
	<-first
	if d, err := s.Peek(t.Context(), "all"); err != nil || !d.Allowed {
		t.Errorf("the lease of a request that has ended is held: %+v %v", d, err)
	}

	// The lease ends: so does the context, with the reason.
	go func() { first <- ask(slow, t.Context()) }()
	inner = <-entered
	if err := s.Reset(t.Context(), "all"); err != nil {
		t.Fatal(err)
	}
	<-inner.Done()
	if !errors.Is(context.Cause(inner), semaphore.ErrLeaseLost) {
		t.Errorf("ended by %v", context.Cause(inner))
	}
	<-first
}

func TestMiddleware_EachSubjectHasItsOwn(t *testing.T) {
	t.Parallel()
	s := one(t, open(t), "own", madcrow.FailClosed)
	by := func(r *http.Request) (string, error) { return r.Header.Get("User"), nil }
	held := take(t, s, "ann")
	h := semaphore.Middleware(s, by, semaphore.MiddlewareOptions{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for user, want := range map[string]int{"ann": 429, "bob": 200, "": 400} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("User", user)
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d %s", user, w.Code, w.Body)
		}
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// A lease of 30 seconds that is held for a moment made Retry-After: 30.
func TestDecision_ErrAsksToComeBackAfterTheTimeThatLeasesWereHeld(t *testing.T) {
	t.Parallel()
	s := one(t, open(t), "back", madcrow.FailClosed)
	held := take(t, s, "x")
	refused := func() problem.Problem {
		_, d, err := s.TryAcquire(t.Context(), "x")
		if err != nil || d.Allowed || d.RetryAfter < 20*time.Second {
			t.Fatalf("%+v %v", d, err)
		}
		if err = d.Err(); !errors.Is(err, semaphore.ErrBusy) {
			t.Fatal(err)
		}
		return problem.From(err)
	}
	if p := refused(); p.Status != 429 || p.RetryAfter != time.Second {
		t.Errorf("nothing is known: %+v", p)
	}
	time.Sleep(100 * time.Millisecond)
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	held = take(t, s, "x")
	if p := refused(); p.RetryAfter < 100*time.Millisecond || p.RetryAfter > 900*time.Millisecond {
		t.Errorf("held for 100 ms: %+v", p)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := take(t, s, "x").Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDo_HoldsALeaseWhileTheFunctionRuns(t *testing.T) {
	t.Parallel()
	s := must[*semaphore.Semaphore](t)(semaphore.New(open(t), "do", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed, LeaseTTL: 300 * time.Millisecond}))
	errOwn := errors.New("own")
	err := s.Do(t.Context(), "x", func(context.Context) error {
		if err := s.Do(t.Context(), "x", func(context.Context) error { return nil }, semaphore.MaxWait(20*time.Millisecond)); !errors.Is(err, semaphore.ErrBusy) {
			t.Errorf("within: %v", err)
		}
		return errOwn
	})
	if !errors.Is(err, errOwn) || errors.Is(err, semaphore.ErrLeaseLost) {
		t.Errorf("%v", err)
	}
	err = s.Do(t.Context(), "x", func(ctx context.Context) error {
		if err := s.Reset(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return nil
	})
	if !errors.Is(err, semaphore.ErrLeaseLost) || problem.From(err).Code != "LEASE_LOST" {
		t.Errorf("a lost lease: %v", err)
	}
	if d, err := s.Peek(t.Context(), "x"); err != nil || !d.Allowed {
		t.Errorf("%+v %v", d, err)
	}
}
