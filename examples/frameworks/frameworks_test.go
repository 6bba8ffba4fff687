// Package frameworks_test runs the programs in the folders beside it.
package frameworks_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/internal/conformance"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

var programs = []string{"nethttp", "chi", "huma", "gin", "echo", "fiber"}

func TestConformance_Chi(t *testing.T) {
	conformance.Run(t, func(_ *testing.T, k *conformance.Kit) conformance.Serve {
		router := chi.NewRouter()
		router.Use(k.Recover)
		conformance.NetHTTP(k, func(pattern string, h http.Handler) {
			method, path, _ := strings.Cut(pattern, " ")
			router.Method(method, path, h)
		})
		return conformance.HTTP(router)
	})
}

func TestPrograms_WithAndWithoutRedis(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir+"/", "./...").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range programs {
		t.Run(name, func(t *testing.T) {
			s := madcrowtest.StartRedis(t)
			c := start(t, filepath.Join(dir, name), s)
			with(t, c, s)
			s.Stop()
			without(t, c)
			s.Start()
			c.eventually(t, "GET", "/notes/a", 200)
		})
	}
}

func with(t *testing.T, c *client, s *madcrowtest.Server) {
	t.Helper()
	c.want(t, "GET", "/articles/1", 200, "source", "database", "title", "A lamp")
	c.want(t, "GET", "/articles/1", 200, "source", "cache", "title", "A lamp")
	c.want(t, "GET", "/articles/3", 404, "code", "NOT_FOUND")
	s.Do(t, "SET", "a", "noted")
	c.want(t, "GET", "/notes/a", 200, "value", "noted", "found", "true")
	s.Do(t, "RPUSH", "list", "x")
	c.want(t, "GET", "/notes/list", 409, "code", "REDIS_WRONG_TYPE")
	c.want(t, "GET", "/features", 200, "notes", "true")
	for n := range 3 {
		c.want(t, "POST", "/visits", 200, "count", strconv.Itoa(n+1))
		c.want(t, "POST", "/orders", 200, "ordered", "true")
	}
	if res := c.want(t, "POST", "/orders", 429, "code", "QUOTA_EXCEEDED"); res.Header.Get("Retry-After") == "" {
		t.Error("a denial without Retry-After")
	}
	c.want(t, "GET", "/health/live", 200, "status", "alive")
	c.want(t, "GET", "/health/ready", 200, "status", "ready")
	c.want(t, "GET", "/health", 200, "status", "healthy")
}

func without(t *testing.T, c *client) {
	t.Helper()
	c.eventually(t, "GET", "/health/ready", 503)
	begin := time.Now()
	c.want(t, "GET", "/articles/1", 200, "source", "database", "title", "A lamp")
	if res := c.want(t, "GET", "/notes/a", 503, "code", "REDIS_UNAVAILABLE"); res.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	c.want(t, "GET", "/features", 200, "notes", "false")
	c.want(t, "POST", "/visits", 503, "code", "SESSION_UNAVAILABLE")
	c.want(t, "GET", "/health/live", 200, "status", "alive")
	c.want(t, "GET", "/health", 200, "status", "degraded")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("six answers without Redis took %v", took)
	}
	// A denial is remembered for up to a second; then it counts alone.
	c.eventually(t, "POST", "/orders", 200)
	for range 2 {
		c.want(t, "POST", "/orders", 200, "ordered", "true")
	}
	c.want(t, "POST", "/orders", 429, "code", "QUOTA_EXCEEDED")
}

type client struct {
	http.Client
	addr string
}

// start runs the real program, as in production: it is connected when it
// listens.
func start(t *testing.T, binary string, s *madcrowtest.Server) *client {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = []string{"ADDR=127.0.0.1:0", "DEPLOY_ENV=PRODUCTION", "REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(s.Port())}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	jar, _ := cookiejar.New(nil)
	c := &client{Client: http.Client{Jar: jar, Timeout: 10 * time.Second}}
	lines := bufio.NewScanner(stderr)
	for c.addr == "" && lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "listening on "); ok {
			c.addr = strings.Trim(rest, `"`)
		}
	}
	done := make(chan struct{})
	go func() { // or it would stand still with a full pipe
		defer close(done)
		_, _ = io.Copy(io.Discard, stderr)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	if c.addr == "" {
		t.Fatal("it ended")
	}
	return c
}

func (c *client) ask(t *testing.T, method, path string) (*http.Response, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var body map[string]any
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatalf("%s %s: %d: %v", method, path, res.StatusCode, err)
	}
	return res, body
}

// want asks; members are names and values in turn.
func (c *client) want(t *testing.T, method, path string, status int, members ...string) *http.Response {
	t.Helper()
	res, body := c.ask(t, method, path)
	if res.StatusCode != status {
		t.Errorf("%s %s: %d, want %d: %v", method, path, res.StatusCode, status, body)
	}
	for i := 0; i < len(members); i += 2 {
		got, _ := json.Marshal(body[members[i]])
		if strings.Trim(string(got), `"`) != members[i+1] {
			t.Errorf("%s %s: %s is %s, want %s", method, path, members[i], got, members[i+1])
		}
	}
	return res
}

func (c *client) eventually(t *testing.T, method, path string, status int) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, body := c.ask(t, method, path)
		if res.StatusCode == status {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s %s: %d, want %d: %v", method, path, res.StatusCode, status, body)
		}
	}
}

// chi gives its patterns no method, so no key of PerRoute was ever found, and GET
// and POST shared a quota in ByPath.
func TestChi_LimitsOfRoutesHold(t *testing.T) {
	r, err := madcrow.Open(t.Context(), madcrowtest.StartRedis(t).Config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(context.Background()) }()
	named := func(name string, n int64) *ratelimit.Limiter {
		l, err := ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(n), FailPolicy: madcrow.FailClosed})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	base, strict, route := named("base", 1000), named("strict", 1), named("route", 1)
	routes := map[string]ratelimit.Limit{"POST /login/{id}": strict, "POST /api/login/{id}": strict}
	done := func(http.ResponseWriter, *http.Request) {}
	for _, c := range []struct {
		name string
		path string
		make func(chi.Router, func(http.Handler) http.Handler)
		want string // of three POSTs and a GET
	}{
		{"With", "/login/7", func(x chi.Router, limited func(http.Handler) http.Handler) {
			x.With(limited).Post("/login/{id}", done)
			x.With(limited).Get("/login/{id}", done)
		}, "200 429 429 200"},
		{"Group", "/login/7", func(x chi.Router, limited func(http.Handler) http.Handler) {
			x.Group(func(x chi.Router) { x.Use(limited); x.Post("/login/{id}", done); x.Get("/login/{id}", done) })
		}, "200 429 429 200"},
		{"With inside of Route", "/api/login/7", func(x chi.Router, limited func(http.Handler) http.Handler) {
			x.Route("/api", func(x chi.Router) {
				x.With(limited).Post("/login/{id}", done)
				x.With(limited).Get("/login/{id}", done)
			})
		}, "200 429 429 200"},
		{"Use", "/login/7", func(x chi.Router, limited func(http.Handler) http.Handler) {
			x.Use(limited)
			x.Post("/login/{id}", done)
			x.Get("/login/{id}", done)
		}, "500 500 500 500"},
		{"Use inside of Route", "/api/login/7", func(x chi.Router, limited func(http.Handler) http.Handler) {
			x.Route("/api", func(x chi.Router) { x.Use(limited); x.Post("/login/{id}", done); x.Get("/login/{id}", done) })
		}, "500 500 500 200"},
	} {
		x := chi.NewRouter()
		c.make(x, ratelimit.Middleware(base, ratelimit.ByFunc(func(*http.Request) (string, error) { return c.name, nil }), ratelimit.MiddlewareOptions{Routes: routes}))
		if got := statuses(x, c.path); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	x := chi.NewRouter()
	x.Use(ratelimit.Middleware(base, ratelimit.ByClient(clientip.RemoteAddr()), ratelimit.MiddlewareOptions{Routes: routes, Route: func(r *http.Request) string {
		return x.Find(chi.NewRouteContext(), r.Method, r.URL.Path)
	}}))
	x.Route("/api", func(x chi.Router) { x.Post("/login/{id}", done); x.Get("/login/{id}", done) })
	if got := statuses(x, "/api/login/7"); got != "200 429 429 200" {
		t.Errorf("WithRoute: %s", got)
	}
	x = chi.NewRouter()
	x.With(ratelimit.Middleware(route, ratelimit.ByPath(), ratelimit.MiddlewareOptions{})).HandleFunc("/both", done)
	if got := statuses(x, "/both"); got != "200 429 429 200" {
		t.Errorf("ByPath: %s", got)
	}
}

// statuses are those of three POSTs and a GET.
func statuses(h http.Handler, path string) string {
	var all []string
	for _, method := range []string{"POST", "POST", "POST", "GET"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		all = append(all, strconv.Itoa(w.Code))
	}
	return strings.Join(all, " ")
}
