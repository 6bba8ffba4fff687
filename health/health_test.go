package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func ask(h http.Handler) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Code, w.Body.String()
}

func TestHealth_ReportsWithoutACommand(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	draining := false
	ready := health.Ready(r, func() bool { return draining })
	detail := health.Detail(r, health.Options{Services: map[string]func() error{"database": func() error { return nil }}})
	if code, body := ask(health.Live()); code != 200 || !strings.Contains(body, "alive") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(ready); code != 200 || !strings.Contains(body, "ready") {
		t.Errorf("%d %s", code, body)
	}
	code, body := ask(detail)
	var rep health.Report
	if err := json.Unmarshal([]byte(body), &rep); err != nil || code != 200 || rep.Status != "healthy" || rep.Services["redis"] != "healthy" || rep.Services["database"] != "healthy" || !rep.Redis.Available || rep.Redis.Mode != "standalone" {
		t.Errorf("%d %s %v", code, body, err)
	}
	draining = true
	if code, body := ask(ready); code != 503 || !strings.Contains(body, "DRAINING") {
		t.Errorf("%d %s", code, body)
	}
	draining = false
	s.Kill()
	for r.Available() {
		_, err := r.Do(t.Context(), func(b madcrow.Builder) madcrow.Command { return b.Ping().Build() })
		if err != nil && !errors.Is(err, madcrow.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if code, body := ask(ready); code != 503 || !strings.Contains(body, "REDIS_UNAVAILABLE") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(detail); code != 200 || !strings.Contains(body, `"redis":"unavailable"`) || !strings.Contains(body, `"degraded"`) || strings.Contains(body, "127.0.0.1") {
		t.Errorf("%d %s", code, body)
	}
}
