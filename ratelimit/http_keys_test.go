package ratelimit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func TestMiddleware_ForgedForwardedForDoesNotEscape(t *testing.T) {
	p := must[clientip.Policy](t)(clientip.TrustedProxies(1))
	w := newWeb(t, newLimit(t, openAgain(t), "x", ratelimit.PerMinute(5), madcrow.FailClosed), ratelimit.ByClient(p))
	for i := range 20 {
		a := w.get("addr", "10.0.0.1:999", "X-Forwarded-For", fmt.Sprintf("198.51.100.%d, 203.0.113.9", i), "X-Real-Ip", fmt.Sprintf("198.51.100.%d", i))
		if want := map[bool]int{true: 204, false: 429}[i < 5]; a.status != want {
			t.Errorf("request %d: %d", i, a.status)
		}
	}
	w.get("addr", "10.0.0.1:999", "X-Forwarded-For", "203.0.113.10").want(204, "")
	// Without the header no quota is counted.
	w.get("addr", "10.0.0.1:999").want(400, "CLIENT_UNKNOWN").has("RateLimit", "", "RateLimit-Policy", "")
	// Addresses of one IPv6 network are one client.
	for i := range 6 {
		a := w.get("X-Forwarded-For", fmt.Sprintf("2001:db8:0:1::%x", i))
		if want := map[bool]int{true: 204, false: 429}[i < 5]; a.status != want {
			t.Errorf("IPv6, request %d: %d", i, a.status)
		}
	}
}

func TestMiddleware_KeysThatAreMissing(t *testing.T) {
	r := openAgain(t)
	l := newLimit(t, r, "x", ratelimit.PerMinute(2), madcrow.FailClosed)
	w := newWeb(t, l, ratelimit.ByHeader("X-Api-Key"))
	w.get().want(400, "KEY_MISSING")
	w.get("X-Api-Key", "").want(400, "KEY_MISSING")
	w.get("X-Api-Key", "a", "X-Api-Key", "b").want(400, "KEY_MISSING")
	w.get("X-Api-Key", "a").want(204, "")

	w = newWeb(t, newLimit(t, r, "or", ratelimit.PerMinute(2), madcrow.FailClosed), ratelimit.ByHeaderOr("X-Api-Key", byAddress()))
	w.get("X-Api-Key", "203.0.113.9").want(204, "").has("RateLimit", `"or";r=1;t=30`)
	w.get().want(204, "").has("RateLimit", `"or";r=1;t=30`) // not the quota of the key that looks like it
	w.get("X-Api-Key", "").want(204, "").has("RateLimit", `"or";r=0;t=30`)
	w.get().want(429, "QUOTA_EXCEEDED")
	w.get("X-Api-Key", "203.0.113.9", "X-Api-Key", "").want(400, "KEY_MISSING")
	w.get("addr", "@").want(400, "CLIENT_UNKNOWN")

	w = newWeb(t, l, ratelimit.ByFunc(func(r *http.Request) (string, error) {
		if r.Header.Get("Broken") != "" {
			return "", errors.New("the user database is away")
		}
		return r.Header.Get("User"), nil
	}))
	w.get().want(400, "KEY_MISSING")
	w.get("Broken", "1").want(500, "INTERNAL_ERROR")
	w.get("User", "alice").want(204, "")
	if n := w.passed.Load(); n != 1 {
		t.Errorf("%d passed", n)
	}
}

func TestKey_SubjectsAreBoundedUnambiguousAndRevealNoSecret(t *testing.T) {
	req := func(pairs ...string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/a,b?q", nil)
		for i := 0; i < len(pairs); i += 2 {
			r.Header.Add(pairs[i], pairs[i+1])
		}
		return r
	}
	field := func(name string) ratelimit.Key {
		return ratelimit.ByFunc(func(r *http.Request) (string, error) { return r.Header.Get(name), nil })
	}
	subject := func(k ratelimit.Key, r *http.Request) string {
		t.Helper()
		return must[string](t)(k.Subject(r))
	}
	both := ratelimit.ByAll(field("A"), field("B"))
	seen := map[string]string{}
	for _, c := range [][2]string{{"a,b", "c"}, {"a", "b,c"}, {"a,1:b", "c"}, {"1:a", "b"}, {"a", "1:b"}, {"ab", "c"}, {"a", "bc"}, {strings.Repeat("x", 200), "y"}} {
		s := subject(both, req("A", c[0], "B", c[1]))
		if before, ok := seen[s]; ok {
			t.Errorf("%q and %q are both %q", before, c, s)
		}
		seen[s] = fmt.Sprint(c)
	}
	if s := subject(ratelimit.ByAll(byAddress(), ratelimit.ByPath()), req()); s != "9:192.0.2.1,8:GET /a,b" {
		t.Errorf("%q", s)
	}
	if s := subject(ratelimit.ByHeader("X-Api-Key"), req("X-Api-Key", "secret")); len(s) != 43 || strings.Contains(s, "secret") {
		t.Errorf("%q", s)
	}
	if a, b := subject(ratelimit.ByHeader("X-A"), req("X-A", "v")), subject(ratelimit.ByHeader("X-B"), req("X-B", "v")); a == b {
		t.Error("one value in two headers is one subject")
	}
	if a, b := subject(field("A"), req("A", strings.Repeat("x", 5000))), subject(field("A"), req("A", strings.Repeat("x", 5001))); len(a) > 96 || a == b {
		t.Errorf("%q and %q", a, b)
	}
	r := req()
	r.Pattern = "GET /a,b"
	if s := subject(ratelimit.ByPath(), r); s != "GET /a,b" {
		t.Errorf("%q", s)
	}
	if _, err := (ratelimit.Key{}).Subject(r); err == nil {
		t.Error("the zero Key has a subject")
	}
	if _, err := both.Subject(req("A", "a")); err == nil {
		t.Error("a part that is missing is passed over")
	}
}
