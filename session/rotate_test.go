package session_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

func TestRotate_KeepsTheLifeOfTheCookie(t *testing.T) {
	m := newManager(t, open(t), options{})
	for _, tc := range []struct {
		name string
		opts []session.LoginOption
		want int
	}{
		{"short and remembered", []session.LoginOption{session.Remember(), session.WithLifetimes(time.Minute, time.Hour)}, 3600},
		{"remembered", []session.LoginOption{session.Remember()}, 90 * 86400},
		{"long and not remembered", []session.LoginOption{session.WithLifetimes(time.Hour, 48*time.Hour)}, 0},
		{"usual", nil, 0},
	} {
		token := login(t, m, "alice", tc.opts...).Token()
		h := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			must(t, m.From(r.Context()).Rotate(r.Context()))
		}))
		req := httptest.NewRequest("GET", "/", nil)
		req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge > tc.want || c[0].MaxAge < tc.want-5 {
			t.Errorf("%s: %v, want Max-Age %d", tc.name, c, tc.want)
		}
	}
}
