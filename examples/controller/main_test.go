package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/service"
)

func TestController_ReadsAndWritesAndSays503WithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := program.Start(t, program.Build(t), s)

	p.Want(t, "GET", "/cache/a", "", 200, "key", "a", "value", "null", "exists", "false")
	p.Want(t, "POST", "/cache", "key=a&value=one&expire_seconds=60", 200, "success", "true", "key", "a")
	p.Want(t, "GET", "/cache/a", "", 200, "value", "one", "exists", "true")
	if ttl := s.Do(t, "TTL", "a"); ttl != int64(60) && ttl != int64(59) {
		t.Errorf("it lives %v s", ttl)
	}
	p.Want(t, "POST", "/cache?key=b&value=two", "", 200, "key", "b")
	if ttl, _ := s.Do(t, "TTL", "b").(int64); ttl < 3590 || ttl > 3600 {
		t.Errorf("it lives %v s", ttl)
	}
	for _, wrong := range []string{"value=x", "key=c&value=x&expire_seconds=0", "key=c&value=x&expire_seconds=soon"} {
		p.Want(t, "POST", "/cache", wrong, 422, "code", "VALIDATION_ERROR")
	}
	s.Do(t, "RPUSH", "list", "x")
	p.Want(t, "GET", "/cache/list", "", 409, "code", "REDIS_WRONG_TYPE")

	program.Faults(t, s, func() { p.Eventually(t, "GET", "/cache/a", 503) }, func() {
		p.Want(t, "GET", "/cache/a", "", 503, "code", "REDIS_UNAVAILABLE")
		p.Want(t, "POST", "/cache", "key=a&value=lost", 503, "code", "REDIS_UNAVAILABLE")
	}, func() { p.Eventually(t, "GET", "/cache/a", 200) })
	p.Want(t, "POST", "/cache", "key=a&value=again", 200)
	p.Want(t, "GET", "/cache/a", "", 200, "value", "again")
}

// A test puts another service in the place of the one that the program has.
func TestController_WithAnotherService(t *testing.T) {
	away := open(t, madcrow.Config{Host: "127.0.0.1", Port: madcrowtest.FreePort(t)})
	deps := inject.New(away, nil)
	redis := inject.Value(deps, service.New(away))
	post := func() int {
		w := httptest.NewRecorder()
		newHandler(deps, redis).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/cache?key=a&value=b", nil))
		return w.Code
	}
	if code := post(); code != 503 {
		t.Errorf("without: %d", code)
	}

	other := service.New(open(t, connected(madcrowtest.StartRedis(t).Config())))
	restore := inject.Override(redis, other)
	if code := post(); code != 200 {
		t.Errorf("with another: %d", code)
	}
	if got, found, err := other.GetCache(t.Context(), "a"); got != "b" || !found || err != nil {
		t.Errorf("%q %v %v", got, found, err)
	}
	restore()
	if code := post(); code != 503 {
		t.Errorf("without again: %d", code)
	}
}

func connected(cfg madcrow.Config) madcrow.Config {
	cfg.Require = true
	return cfg
}

func open(t *testing.T, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

func TestController_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
