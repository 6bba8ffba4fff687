package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func ask(h http.Handler) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Code, w.Body.String()
}

// want asks h until it answers with the code and the texts.
func want(t *testing.T, h http.Handler, code int, texts ...string) {
	t.Helper()
	var got int
	var body string
	defer func() {
		if t.Failed() {
			t.Logf("the last answer: %d %s", got, body)
		}
	}()
	testkit.Eventually(t, strings.Join(texts, ", "), func() bool {
		got, body = ask(h)
		for _, text := range texts {
			if !strings.Contains(body, text) {
				return false
			}
		}
		return got == code
	})
}

func monitor(t *testing.T, r *madcrow.Redis, opt health.Options) *health.Monitor {
	t.Helper()
	m := testkit.Must[*health.Monitor](t)(health.New(r, opt))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		testkit.NoError(t, m.Close(ctx))
	})
	return m
}

func report(t *testing.T, m *health.Monitor) (rep health.Report) {
	t.Helper()
	code, body := ask(m.Detail())
	if err := json.Unmarshal([]byte(body), &rep); err != nil || code != 200 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	return rep
}

// kill ends the server and waits until r knows.
func kill(t *testing.T, s *madcrowtest.Server, r *madcrow.Redis) {
	t.Helper()
	s.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { return !r.Available() })
}

func TestMonitor_ReportsWithoutACommand(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := madcrowtest.Open(t, s.Config())
	draining := atomic.Bool{}
	m := monitor(t, r, health.Options{
		Draining: draining.Load,
		Checks:   []health.Check{{Name: "database", Run: func(context.Context) error { return nil }}},
	})
	want(t, m.Live(), 200, "alive")
	want(t, m.Ready(), 200, `{"status":"ready"}`)
	if rep := report(t, m); rep.Status != "healthy" || rep.Services["redis"] != "healthy" || rep.Services["database"] != "healthy" || !rep.Redis.Available || rep.Redis.Mode != "standalone" {
		t.Errorf("%+v", rep)
	}
	draining.Store(true)
	if code, body := ask(m.Ready()); code != 503 || !strings.Contains(body, "DRAINING") {
		t.Errorf("%d %s", code, body)
	}
	draining.Store(false)
	kill(t, s, r)
	if code, body := ask(m.Ready()); code != 503 || !strings.Contains(body, "REDIS_UNAVAILABLE") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(m.Detail()); code != 200 || !strings.Contains(body, `"redis":"unavailable"`) || !strings.Contains(body, `"degraded"`) || strings.Contains(body, "127.0.0.1") {
		t.Errorf("%d %s", code, body)
	}
}

// A service that can work without Redis was taken out of its load balancer with all
// the others: Ready was 503.
func TestMonitor_OptionalRedisLeavesTheProcessReady(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := madcrowtest.Open(t, s.Config())
	m := monitor(t, r, health.Options{Optional: true})
	want(t, m.Ready(), 200, `{"status":"ready"}`)
	kill(t, s, r)
	if code, body := ask(m.Ready()); code != 200 || strings.TrimSpace(body) != `{"status":"degraded","unavailable":["redis"]}` {
		t.Errorf("%d %s", code, body)
	}
	s.Start()
	want(t, m.Ready(), 200, `{"status":"ready"}`)
}

// Health knew neither since when Redis is away nor why.
func TestMonitor_SaysSinceWhenAndWhy(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--maxmemory-policy", "allkeys-lru"))
	r := madcrowtest.Open(t, s.Config())
	public, operator := monitor(t, r, health.Options{}), monitor(t, r, health.Options{Details: true})
	want(t, operator.Detail(), 200, `"maxmemory_policy":"allkeys-lru"`, `"rtt_ms":`, `"server":"`, `"max_connections":20`)
	rep := report(t, public)
	if rep.Redis.Since.IsZero() || time.Since(rep.Redis.Since) > time.Minute || rep.Redis.Kind != "" || rep.Redis.Figures != nil || rep.Redis.Server != "" {
		t.Errorf("%+v", rep.Redis)
	}
	before := time.Now()
	kill(t, s, r)
	want(t, public.Detail(), 200, `"state":"down"`, `"kind":"unavailable"`)
	rep = report(t, public)
	if since := rep.Redis.Since; since.Before(before.Add(-time.Second)) || rep.Redis.Error != "" {
		t.Errorf("%+v", rep.Redis)
	}
	if text := report(t, operator).Redis.Error; !strings.Contains(text, s.Addr()) {
		t.Errorf("the operator is not shown why: %q", text)
	}
}

func TestMonitor_AfterCloseIsNotReady(t *testing.T) {
	r := madcrowtest.Open(t, madcrowtest.StartRedis(t).Config())
	m := monitor(t, r, health.Options{})
	testkit.NoError(t, m.Close(t.Context()))
	if code, body := ask(m.Ready()); code != 503 || !strings.Contains(body, "DRAINING") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := ask(m.Live()); code != 200 {
		t.Error(code)
	}
}

func TestNew_ListsEveryMistake(t *testing.T) {
	r := madcrowtest.Open(t, madcrowtest.StartRedis(t).Config())
	run := func(context.Context) error { return nil }
	_, err := health.New(r, health.Options{Checks: []health.Check{
		{Name: "redis", Run: run},
		{Name: "a", Run: run, Every: -1},
		{Name: "a", Timeout: time.Microsecond},
		{Run: run},
	}})
	var wrong *madcrow.ArgumentError
	if !errors.As(err, &wrong) {
		t.Fatalf("%v", err)
	}
	const all = "Checks[0].Name, Checks[1].Every, Checks[2].Name, Checks[2].Run, Checks[2].Timeout, Checks[3].Name"
	if wrong.Argument != all {
		t.Errorf("%q, want %q", wrong.Argument, all)
	}
}
