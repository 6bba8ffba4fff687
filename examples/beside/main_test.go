package main

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The data is what the Python program stores.
func TestBeside_KnowsWhoIsLoggedInThere(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := program.Start(t, program.Build(t), s)
	s.Do(t, "SETEX", "session:s1", "3600", `{"user_id": 7, "username": "ada", "role": "admin", "login_time": "2024-01-02T03:04:05.678901"}`)
	s.Do(t, "SETEX", "session:s2", "3600", `{"user_id": 8, "username": "bob", "role": "user"}`)
	s.Do(t, "SET", "admin_notice", "tonight")

	for _, tc := range []struct {
		path, token string
		status      int
		text        string
	}{
		{"/me", "s1", 200, `{"user":{"user_id":7,"username":"ada","role":"admin"}}`},
		{"/me", "s2", 200, `"bob"`},
		{"/me", "s3", 401, "SESSION_INVALID"},
		{"/me", "", 401, "SESSION_INVALID"},
		{"/admin", "s1", 200, `{"notice":"tonight"}`},
		{"/admin", "s2", 403, "NOT_ALLOWED"},
	} {
		if status, text := ask(t, p, tc.path, tc.token); status != tc.status || !strings.Contains(text, tc.text) {
			t.Errorf("%s with %q: %d %s, want %d %s", tc.path, tc.token, status, text, tc.status, tc.text)
		}
	}
	s.Do(t, "DEL", "session:s1") // a logout there
	if status, text := ask(t, p, "/me", "s1"); status != 401 {
		t.Errorf("after the logout: %d %s", status, text)
	}

	program.Faults(t, s, func() { p.Eventually(t, "GET", "/me", 503) }, func() {
		p.Want(t, "GET", "/me", "", 503, "code", "REDIS_UNAVAILABLE")
		p.Want(t, "GET", "/admin", "", 503, "code", "REDIS_UNAVAILABLE")
	}, func() { p.Eventually(t, "GET", "/me", 401) })
}

func ask(t *testing.T, p *program.Program, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestBeside_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
