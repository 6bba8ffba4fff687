package ratelimit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// web is a middleware around a handler that counts its calls.
type web struct {
	t       testing.TB
	handler http.Handler
	passed  atomic.Int64
	last    ratelimit.Decision // of the last request that passed
	found   bool
}

func newWeb(t testing.TB, limit ratelimit.Limit, by ratelimit.Key, opts ...ratelimit.MiddlewareOptions) *web {
	w := &web{t: t}
	w.handler = ratelimit.Middleware(limit, by, first(opts))(w)
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.passed.Add(1)
	w.last, w.found = ratelimit.DecisionFrom(r.Context())
	rw.WriteHeader(http.StatusNoContent)
}

// get asks with headers given in pairs; "addr" and "path" are no headers.
func (w *web) get(pairs ...string) *reply {
	w.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "203.0.113.9:1234"
	for i := 0; i < len(pairs); i += 2 {
		switch pairs[i] {
		case "addr":
			r.RemoteAddr = pairs[i+1]
		case "path":
			r.URL.Path = pairs[i+1]
		default:
			r.Header.Add(pairs[i], pairs[i+1])
		}
	}
	return w.do(r)
}

func (w *web) do(r *http.Request) *reply {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := &reply{t: w.t, status: rec.Code, header: rec.Header()}
	if rec.Code >= 400 {
		if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
			w.t.Errorf("Content-Type %q", got)
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
			w.t.Errorf("body %q: %v", rec.Body, err)
		}
	}
	return a
}

type reply struct {
	t      testing.TB
	status int
	header http.Header
	body   map[string]any
}

// want checks status and code.
func (a *reply) want(status int, code string) *reply {
	a.t.Helper()
	got, _ := a.body["code"].(string)
	if a.status != status || got != code {
		a.t.Errorf("%d %q, want %d %q", a.status, got, status, code)
	}
	return a
}

// has checks headers given in pairs; the value "" is for one that is not there.
func (a *reply) has(pairs ...string) *reply {
	a.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := strings.Join(a.header.Values(pairs[i]), " | "); got != pairs[i+1] {
			a.t.Errorf("%s: %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
	return a
}

func newLimit(t testing.TB, r *madcrow.Redis, name string, rate ratelimit.Rate, fail madcrow.FailPolicy, opts ...ratelimit.Options) *ratelimit.Limiter {
	t.Helper()
	o := first(opts)
	o.Rate, o.FailPolicy = rate, fail
	return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, o))
}

// first is the first of some options, or the zero value.
func first[T any](all []T) (o T) {
	if len(all) > 0 {
		o = all[0]
	}
	return o
}

// openAgain is open, with nothing left of an earlier run.
func openAgain(t testing.TB) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = fmt.Sprintf("%s:%d:", t.Name(), time.Now().UnixNano())
	return openConfig(t, cfg)
}

func byAddress() ratelimit.Key { return ratelimit.ByClient(clientip.RemoteAddr()) }

func TestMiddleware_SendsTheQuotaAndDeniesWithAProblem(t *testing.T) {
	var log bytes.Buffer
	w := newWeb(t, newLimit(t, openAgain(t), "api", ratelimit.PerMinute(5), madcrow.FailClosed), byAddress(), ratelimit.MiddlewareOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for i, want := range []string{`"api";r=4;t=48`, `"api";r=3;t=36`, `"api";r=2;t=24`, `"api";r=1;t=12`, `"api";r=0;t=12`} {
		a := w.get().want(204, "").has("RateLimit", want, "RateLimit-Policy", `"api";q=5;w=60`, "Retry-After", "", "X-RateLimit-Limit", "")
		a.sf("RateLimit")
		a.sf("RateLimit-Policy")
		if !w.found || !w.last.Allowed || w.last.Remaining != int64(4-i) || w.last.Limiter != "api" {
			t.Errorf("in the context: %+v, %v", w.last, w.found)
		}
	}
	for _, from := range []string{"Redis", "memory"} {
		a := w.get().want(429, "QUOTA_EXCEEDED").has("RateLimit-Policy", `"api";q=5;w=60`, "Cache-Control", "no-store")
		items := a.sf("RateLimit")
		if len(items) != 1 || items[0].name != "api" || items[0].params["r"] != "0" {
			t.Fatalf("from %s: %v", from, items)
		}
		a.number(items[0].params["t"], 50, 60)
		a.has("Retry-After", items[0].params["t"])
		if a.body["type"] != "https://iana.org/assignments/http-problem-types#quota-exceeded" || a.body["title"] != "Quota Exceeded" ||
			a.body["status"] != 429.0 || fmt.Sprint(a.body["violated-policies"]) != "[api]" {
			t.Errorf("from %s: %v", from, a.body)
		}
	}
	if n := w.passed.Load(); n != 5 {
		t.Errorf("%d passed", n)
	}
	if text := log.String(); strings.Count(text, "level=INFO") != 2 || !strings.Contains(text, "denied by api for ") || strings.Contains(text, "203.0.113.9") {
		t.Errorf("log: %s", text)
	}
	w.get("addr", "203.0.113.10:1").want(204, "")
	r := httptest.NewRequest(http.MethodHead, "/", nil)
	r.RemoteAddr = "203.0.113.9:1"
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	if rec.Code != 429 || rec.Body.Len() != 0 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("HEAD: %d %q %v", rec.Code, rec.Body, rec.Header())
	}
}

func TestMiddleware_WithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	e := &events{n: map[string]int{}}
	cfg := s.Config()
	cfg.Recorder = e
	r := openConfig(t, cfg)
	x := ratelimit.MiddlewareOptions{Headers: ratelimit.HeadersRateLimit | ratelimit.HeadersX | ratelimit.HeadersRetryAfter}
	cost := x
	cost.Cost = func(r *http.Request) int64 { return max(1, r.ContentLength) }
	l := newLimit(t, r, "x", ratelimit.PerMinute(10), madcrow.FailClosed)
	g := must[*ratelimit.Group](t)(ratelimit.Join(newLimit(t, r, "a", ratelimit.PerMinute(10), madcrow.FailOpen), newLimit(t, r, "b", ratelimit.PerDay(99), madcrow.FailClosed)))
	var log bytes.Buffer
	var noted ratelimit.Decision
	closed := newWeb(t, l, byAddress(), ratelimit.MiddlewareOptions{Logger: slog.New(slog.NewTextHandler(&log, nil)), OnDecision: func(_ *http.Request, d ratelimit.Decision) { noted = d }})
	opened := newWeb(t, l.OnFailure(madcrow.FailOpen), byAddress(), x)
	local := newWeb(t, l.OnFailure(madcrow.FailLocal(2)), byAddress(), cost)
	group := newWeb(t, g, byAddress())
	closed.get().want(204, "")
	s.Kill()

	a := closed.get().want(503, "LIMIT_UNAVAILABLE").has("RateLimit", "", "RateLimit-Policy", "", "Retry-After", "1")
	if _, there := a.body["violated-policies"]; there || a.body["type"] != "about:blank" || closed.passed.Load() != 1 {
		t.Errorf("closed: %v", a.body)
	}
	if noted.Allowed || !noted.Degraded || !errors.Is(noted.Cause, madcrow.ErrUnavailable) || noted.Limiter != "x" {
		t.Errorf("closed: %+v", noted)
	}
	if !strings.Contains(log.String(), "level=ERROR") || strings.Contains(fmt.Sprint(a.body), "127.0.0.1") {
		t.Errorf("log %s, body %v", &log, a.body)
	}

	for range 20 {
		opened.get().want(204, "").has("RateLimit", "", "RateLimit-Policy", `"x";q=10;w=60`, "X-RateLimit-Limit", "10", "X-RateLimit-Remaining", "", "X-RateLimit-Reset", "")
	}
	if !opened.found || !opened.last.Allowed || !opened.last.Degraded || opened.last.Source != ratelimit.SourceFallback || opened.last.Cause == nil {
		t.Errorf("open: %+v", opened.last)
	}
	group.get().want(204, "").has("RateLimit", "", "RateLimit-Policy", `"a";q=10;w=60, "b";q=99;w=86400`)

	for i, want := range []string{`"x";r=4;t=48`, `"x";r=3;t=36`, `"x";r=2;t=24`, `"x";r=1;t=12`, `"x";r=0;t=12`} {
		local.get().want(204, "").has("RateLimit", want, "RateLimit-Policy", `"x";q=10;w=60`, "X-RateLimit-Limit", "5", "X-RateLimit-Remaining", strconv.Itoa(4-i))
	}
	a = local.get().want(429, "QUOTA_EXCEEDED")
	a.number(a.header.Get("Retry-After"), 40, 68)
	// Above this process's share, and not above the limit.
	big := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("sixxxx"))
	big.RemoteAddr = "203.0.113.99:1"
	local.do(big).want(503, "LIMIT_UNAVAILABLE").has("RateLimit", "")

	shadow := newWeb(t, l, byAddress(), ratelimit.MiddlewareOptions{Shadow: true})
	e.take()
	shadow.get().want(204, "")
	if got := e.take(); got != "map[error:1]" { // a failure is no denial
		t.Errorf("shadow: counted %s", got)
	}
	if !shadow.found || shadow.last.Allowed || !shadow.last.Degraded {
		t.Errorf("shadow: %+v", shadow.last)
	}
}

func TestMiddleware_FrozenRedisEndsInTime(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	w := newWeb(t, newLimit(t, r, "x", ratelimit.PerMinute(10), madcrow.FailClosed, ratelimit.Options{Timeout: 50 * time.Millisecond}), byAddress())
	w.get().want(204, "")
	s.Pause()
	defer s.Resume()
	asked := time.Now()
	a := w.get()
	if took := time.Since(asked); took > 2*time.Second || a.status != 504 && a.status != 503 {
		t.Errorf("%d after %v", a.status, took)
	}
}

func TestMiddleware_CallerWhoLeftReachesNoHandler(t *testing.T) {
	w := newWeb(t, newLimit(t, openAgain(t), "x", ratelimit.PerMinute(10), madcrow.FailOpen), byAddress())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)
	if a := w.do(r); a.status == 429 || w.passed.Load() != 0 {
		t.Errorf("%d, %d passed", a.status, w.passed.Load())
	}
}

func TestMiddleware_HandsTheWriterOn(t *testing.T) {
	l := newLimit(t, openAgain(t), "x", ratelimit.PerMinute(10), madcrow.FailClosed)
	var outside http.ResponseWriter
	limited := ratelimit.Middleware(l, byAddress(), ratelimit.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w != outside {
			t.Error("another writer")
		}
		if w.Header().Get("RateLimit") == "" {
			t.Error("the headers come later")
		}
		if r.URL.Path == "/hijack" {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = buf.WriteString("HTTP/1.1 204 No Content\r\n\r\n")
			_ = buf.Flush()
			_ = conn.Close()
			return
		}
		_, _ = io.WriteString(w, "one\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done() // the first line arrives although this has not ended
	}))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outside = w
		limited.ServeHTTP(w, r)
	}))
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	_ = resp.Body.Close()
	if err != nil || line != "one\n" || resp.Header.Get("RateLimit") != `"x";r=9;t=54` {
		t.Errorf("%q %v %v", line, err, resp.Header)
	}
	if resp, err = s.Client().Get(s.URL + "/hijack"); err != nil || resp.StatusCode != 204 {
		t.Errorf("%v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

func TestMiddleware_ManyAtOnceAdmitExactlyTheLimit(t *testing.T) {
	r := openAgain(t)
	g := must[*ratelimit.Group](t)(ratelimit.Join(newLimit(t, r, "a", ratelimit.PerMinute(50), madcrow.FailClosed), newLimit(t, r, "b", ratelimit.PerDay(1000), madcrow.FailClosed)))
	var passed, refused atomic.Int64
	h := ratelimit.Middleware(g, byAddress(), ratelimit.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d, ok := ratelimit.DecisionFrom(r.Context()); !ok || !d.Allowed {
			t.Errorf("%+v %v", d, ok)
		}
		passed.Add(1)
	}))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 10 {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
				if rec.Code == http.StatusTooManyRequests {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 50 || refused.Load() != 270 {
		t.Errorf("%d passed, %d refused", passed.Load(), refused.Load())
	}
}

func BenchmarkMiddleware(b *testing.B) {
	r := openAgain(b)
	for name, limit := range map[string]int64{"admitted": 1_000_000, "denied": 1} {
		b.Run(name, func(b *testing.B) {
			l := newLimit(b, r, name, ratelimit.PerDay(limit), madcrow.FailClosed, ratelimit.Options{Algorithm: ratelimit.GCRA(limit)})
			h := ratelimit.Middleware(l, byAddress(), ratelimit.MiddlewareOptions{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			req := httptest.NewRequest(http.MethodGet, "/", nil)
			w := &discard{header: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				h.ServeHTTP(w, req)
			}
		})
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header { return d.header }

func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

func (d *discard) WriteHeader(int) {}
