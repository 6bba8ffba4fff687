package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/embedded"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// backends are the kinds of Redis that the whole suite runs on.
func backends() map[string]func(*testing.T) madcrow.Config {
	return map[string]func(*testing.T) madcrow.Config{
		"embedded": func(t *testing.T) madcrow.Config {
			srv, err := embedded.Start(embedded.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { srv.Close() })
			return srv.Config()
		},
		"standalone": func(t *testing.T) madcrow.Config {
			return madcrowtest.StartRedis(t).Config()
		},
		"TLS and ACL": func(t *testing.T) madcrow.Config {
			// The least that the server needs.
			return madcrowtest.StartRedis(t, madcrowtest.WithTLS(), madcrowtest.WithUser("web", "s3cret-of-web", "~*", "&*",
				"-@all", "+get", "+set", "+setex", "+psetex", "+del", "+exists", "+pttl", "+publish", "+subscribe", "+unsubscribe",
				"+evalsha", "+eval", "+script|load", "+time", "+zadd", "+zcard", "+zrange", "+zrevrange", "+zrevrangebyscore",
				"+zremrangebyscore", "+zrem", "+pexpire", "+ping", "+info", "+hello", "+auth", "+client", "+select")).Config()
		},
		"sentinel": func(t *testing.T) madcrow.Config { return madcrowtest.StartSentinel(t).Config() },
		"cluster":  func(t *testing.T) madcrow.Config { return madcrowtest.StartCluster(t).Config() },
	}
}

// web is a server under test.
type web struct {
	t   *testing.T
	url string
	log *logBuffer
	srv *Server
	r   *madcrow.Redis
}

func startWeb(t *testing.T, cfg madcrow.Config, change ...func(*Options)) *web {
	t.Helper()
	log := &logBuffer{}
	if cfg.CommandTimeout == 0 {
		cfg.CommandTimeout = 5 * time.Second // a busy machine is no failure here
	}
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = r.Close(ctx)
	})
	logger := slog.New(slog.NewJSONHandler(log, nil)) // the default level must tell every error_id
	opt := Options{Redis: r, Logger: logger, AccessLog: logger, Version: "test", LocalOnly: true}
	for _, c := range change {
		c(&opt)
	}
	srv, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(srv)
	t.Cleanup(hs.Close)
	return &web{t, hs.URL, log, srv, r}
}

func (w *web) waitAvailable() *web {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !w.r.Available(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("Redis is not available: %v", w.r.Err())
		}
	}
	return w
}

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) members(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%q: %v", a.body, err)
	}
	return m
}

// do sends a request; headers come in pairs.
func (w *web) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(bytes.TrimSpace(text))}
}

// wantProblem checks a problem document and that its id is in the log.
func (w *web) wantProblem(a answer, status int, code, operation, table string) map[string]any {
	w.t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("status %d, type %q, want %d and a problem: %s", a.status, a.header.Get("Content-Type"), status, a.body)
		return nil
	}
	m := a.members(w.t)
	for _, member := range []string{"type", "title", "detail", "instance", "message", "error_id"} {
		if s, _ := m[member].(string); s == "" {
			w.t.Errorf("no %s in %s", member, a.body)
		}
	}
	if m["error"] != true || m["status"] != float64(status) || m["code"] != code {
		w.t.Errorf("want code %s: %s", code, a.body)
	}
	op, _ := m["operation"].(string)
	tab, _ := m["table"].(string)
	if op != operation || tab != table {
		w.t.Errorf("want operation %q and table %q: %s", operation, table, a.body)
	}
	if (status == 503) != (a.header.Get("Retry-After") != "") {
		w.t.Errorf("Retry-After %q with status %d", a.header.Get("Retry-After"), status)
	}
	id, _ := m["error_id"].(string)
	if !strings.Contains(w.log.String(), id) {
		w.t.Errorf("error_id %s is not in the log", id)
	}
	return m
}

// logBuffer is written by many goroutines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRoot_SendsBrowsersToTheDocumentationAndProgramsAProblem(t *testing.T) {
	web := startWeb(t, backends()["embedded"](t))
	for accept, status := range map[string]int{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": http.StatusFound,
		"application/xml, text/html;q=0.5":                                http.StatusFound,
		"*/*":                                                             http.StatusNotFound,
		"application/json":                                                http.StatusNotFound,
		"text/html;q=0, */*":                                              http.StatusNotFound,
		"":                                                                http.StatusNotFound,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			req := httptest.NewRequestWithContext(t.Context(), method, "http://localhost/", nil)
			if accept != "" {
				req.Header.Set("Accept", accept)
			}
			w := httptest.NewRecorder()
			web.srv.ServeHTTP(w, req)
			want := status
			if method == http.MethodPost {
				want = http.StatusNotFound
			}
			place := map[bool]string{true: "/docs"}[want == http.StatusFound]
			if w.Code != want || w.Header().Get("Location") != place || want == http.StatusNotFound && w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s with Accept %q: %d %v, want %d", method, accept, w.Code, w.Header(), want)
			}
		}
	}
}
