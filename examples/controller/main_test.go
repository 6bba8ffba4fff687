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
	for _, wrong := range []string{"value=x", "key=c&value=x&expire_seconds=0", "key=c&value=x&expire_seconds=soon", "key=c"} {
		p.Want(t, "POST", "/cache", wrong, 422, "code", "VALIDATION_ERROR")
	}
	// Not so many that a time.Duration cannot hold them.
	p.Want(t, "POST", "/cache", "key=c&value=x&expire_seconds=3153600000", 200)
	for _, seconds := range []string{"3153600001", "9223372037", "18446744074", "9223372036854775807", "9223372036854775808"} {
		a := p.Want(t, "POST", "/cache", "key=d&value=x&expire_seconds="+seconds, 422, "code", "VALIDATION_ERROR")
		if !strings.Contains(a.Text, "expire_seconds") || s.Do(t, "EXISTS", "d") != int64(0) {
			t.Errorf("%s s: %s", seconds, a.Text)
		}
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
	deps := inject.New(away, inject.Options{})
	redis := inject.Value(deps, service.New(away, service.Options{}))
	post := func() int {
		w := httptest.NewRecorder()
		newHandler(deps, redis).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/cache?key=a&value=b", nil))
		return w.Code
	}
	if code := post(); code != 503 {
		t.Errorf("without: %d", code)
	}

	other := service.New(open(t, connected(madcrowtest.StartRedis(t).Config())), service.Options{})
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

// A form is read up to a size, and half of one is not stored.
func TestController_AFormHasABound(t *testing.T) {
	r := open(t, connected(madcrowtest.StartRedis(t).Config()))
	deps := inject.New(r, inject.Options{})
	svc := service.New(r, service.Options{})
	handler := newHandler(deps, inject.Value(deps, svc))
	const begin, middle, end = "--x\r\nContent-Disposition: form-data; name=\"value\"", "\r\n\r\n", "\r\n--x--\r\n"
	for _, form := range []struct{ kind, before, after string }{
		{"application/x-www-form-urlencoded", "value=", ""},
		{"multipart/form-data; boundary=x", begin + middle, end},
		{"multipart/form-data; boundary=x", begin + "; filename=\"f\"" + middle, end}, // would be a file on the disk
	} {
		isFile := strings.Contains(form.before, "filename")
		for more, want := range map[int]int{0: 200, 1: 422} {
			text := strings.Repeat("a", 1<<20-len(form.before+form.after)+more)
			req := httptest.NewRequest(http.MethodPost, "/cache?key=a", strings.NewReader(form.before+text+form.after))
			req.Header.Set("Content-Type", form.kind)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, req)
			if isFile {
				want = 422
			}
			if w.Code != want || want == 422 && !strings.Contains(w.Body.String(), `"value"`) {
				t.Errorf("%s, %d too many: %d %s", form.kind, more, w.Code, w.Body)
			}
		}
	}
	if got, _, err := svc.GetCache(t.Context(), "a"); err != nil || strings.Trim(got, "a") != "" || len(got) < 1<<20-200 {
		t.Errorf("%d bytes, %v", len(got), err)
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
