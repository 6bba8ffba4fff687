package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
)

// slow is more than any answer without Redis may take, on a busy machine.
const slow = 3 * time.Second

func TestWithoutRedis(t *testing.T) {
	for name, away := range map[string]func(*site){
		"stopped": func(s *site) { s.redis.Stop() },
		"frozen":  func(s *site) { s.redis.Pause() },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(s.redis.Resume)
			b, unseen := s.browser(firefox), s.browser(iphone)
			b.login("ada")
			unseen.plant(strings.Repeat("A", 56))
			cookie := b.cookie()
			if !b.in("ada") {
				t.Fatal("ada is not in")
			}
			away(s)
			isAway(t, b, unseen, s.browser(firefox))
			if a := b.post("/logout"); a.code < 503 || a.header.Get("Clear-Site-Data") == "" || b.cookie() != "" || a.took > slow {
				t.Errorf("logout: %v", a)
			}

			s.redis.Start()
			s.redis.Resume()
			program.Wait(t, func() bool { return s.browser(firefox).get("/login").code == 200 })
			b.plant(cookie) // the logout did not reach the server, if it has the session still
			if kept := name == "frozen"; b.in("ada") != kept {
				t.Errorf("the session is there: %v", !kept)
			}
			b.login("ada")
			if a := b.get("/profile"); a.has("cannot be reached") {
				t.Error(a)
			}
		})
	}
}

// isAway looks at every page. b has been at the profile, unseen has not.
func isAway(t *testing.T, b, unseen, stranger *browser) {
	t.Helper()
	program.Wait(t, func() bool { return stranger.get("/login").code == 503 })
	for _, a := range []answer{stranger.get("/login"), stranger.post("/login", "name", "ada", "password", password)} {
		if a.code != 503 || a.header.Get("Retry-After") == "" || a.header.Get("Set-Cookie") != "" || !a.has("Service Unavailable", "Try again in") || a.took > slow {
			t.Errorf("login: %v", a)
		}
	}
	if a := b.get("/profile"); a.code != 200 || !a.has("<h1>ada</h1>", "cannot be reached") || a.has("Change the password") || a.took > slow {
		t.Errorf("profile: %v", a)
	}
	if a := unseen.get("/profile"); a.code < 503 || !a.has("The session") || a.took > slow {
		t.Errorf("profile that was not seen: %v", a)
	}
	if a := b.get("/sessions"); a.code < 503 || a.took > slow {
		t.Errorf("sessions: %v", a)
	}
	if a := b.post("/password", "old", password, "new", "staple staple battery", "again", "staple staple battery"); a.code < 503 || a.took > slow {
		t.Errorf("password: %v", a)
	}
	if a := stranger.get("/style.css"); a.code != 200 {
		t.Error(a)
	}
	b.header.Set("Accept", "application/json")
	defer b.header.Del("Accept")
	var p struct {
		Status int
		Code   string
	}
	if a := b.get("/sessions"); json.Unmarshal([]byte(a.body), &p) != nil || p.Status != a.code || !strings.HasPrefix(p.Code, "SESSION_") {
		t.Error(a)
	}
}

func TestErrors_ArePagesAndGiveNothingAway(t *testing.T) {
	b := open(t).browser(firefox)
	for _, a := range []answer{b.get("/nowhere"), b.get("/logout"), b.send(http.MethodDelete, "/login")} {
		if a.code != 404 || !a.has("<h1>Not Found</h1>", "There is no such page.") {
			t.Error(a)
		}
	}
	if a := b.post("/login", "name", strings.Repeat("x", maxForm)); a.code != 400 {
		t.Error(a)
	}
	if a := b.post("/sessions/end", "session", "all"); a.code != 401 || !a.has("There is no valid session") {
		t.Error(a)
	}
	if a := b.post("/login", "name", `"><script>alert(1)</script>`, "password", "x"); a.code != 401 || a.has("<script>") {
		t.Error(a)
	}
	for _, path := range []string{"/login", "/nowhere", "/profile"} {
		h := b.get(path).header
		if !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("Cache-Control") != "no-store" ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// Behind a proxy its header says whose address it is; a request without one is
// not let at the passwords.
func TestProxies_TheAddressIsTheClients(t *testing.T) {
	s := newSite(t)
	s.url = "http://" + s.start(nil, "-proxies", "1", "-secret-file", s.dir+"/secret")
	b := s.browser(firefox)
	if a := b.post("/login", "name", "ada", "password", password); a.code != 400 {
		t.Error(a)
	}
	b.header.Set("X-Forwarded-For", "203.0.113.9, 2001:db8::17")
	a := b.login("ada")
	c, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil || !c.Secure || c.Name != cookieName {
		t.Errorf("%v %v", c, err)
	}
	if a := b.get("/sessions"); !a.has("2001:db8::17") || a.has("203.0.113.9") {
		t.Error(a)
	}
}

func TestDev_WorksWithoutTLSHereAlone(t *testing.T) {
	s := newSite(t)
	s.url = "http://" + s.start(nil, "-dev")
	b := s.browser(firefox)
	a := b.login("ada")
	if c, err := http.ParseSetCookie(a.header.Get("Set-Cookie")); err != nil || c.Secure || c.Name != "session" || !c.HttpOnly {
		t.Errorf("%v %v", c, err)
	}
	if !b.in("ada") || a.header.Get("Strict-Transport-Security") != "" {
		t.Error(a)
	}
}
