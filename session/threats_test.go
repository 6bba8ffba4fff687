package session_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// Each test that the page names as its proof exists.
func TestSessionsPage_NamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/sessions.md")
	must(t, err)
	files, err := filepath.Glob("*_test.go")
	must(t, err)
	var tests strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		tests.Write(text)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(page), -1)
	for _, n := range names {
		if !strings.Contains(tests.String(), "func "+n[1]+"(") {
			t.Errorf("there is no %s", n[1])
		}
	}
	if len(names) < 40 {
		t.Errorf("%d tests are named", len(names))
	}
	// Every threat has a defence and a proof.
	_, threats, _ := strings.Cut(string(page), "| threat | defence | test |")
	for line := range strings.Lines(threats) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			if strings.HasPrefix(line, "`") {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || !strings.Contains(cells[2], "`") {
			t.Errorf("no proof: %s", line)
		}
	}
}

// The code of the page.
func TestFastAPILayout_MovesToTheTyped(t *testing.T) {
	r := open(t)
	old := newManager(t, r, options{FastAPILayout: true, Cookie: "session_id", IdleTimeout: time.Hour})
	sessions := newManager(t, r, options{})
	setKey(t, r, t.Name()+":session:abc", `{"items": ["from python"], "n": 1}`)
	move := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			before := old.From(r.Context())
			c, found, err := before.Get(r.Context())
			if err == nil && found {
				err = sessions.From(r.Context()).Update(r.Context(), func(now *cart) error { *now = c; return nil })
				if err == nil {
					err = before.Logout(r.Context())
				}
			}
			if err != nil {
				problem.Write(w, r, nil, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	var items []string
	h := sessions.Middleware(madcrow.FailClosed)(old.Middleware(madcrow.FailClosed)(move(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := sessions.From(r.Context()).Get(r.Context())
		must(t, err)
		items = c.Items
		w.WriteHeader(http.StatusNoContent)
	}))))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "session_id", Value: "abc"})
	for range 2 {
		w := httptest.NewRecorder()
		items = nil
		h.ServeHTTP(w, req)
		if strings.Join(items, ",") != "from python" || w.Code != http.StatusNoContent {
			t.Errorf("%d %v", w.Code, items)
		}
		req = httptest.NewRequest("GET", "/", nil)
		for _, c := range w.Result().Cookies() {
			switch c.Name {
			case "session_id":
				if c.MaxAge != -1 {
					t.Errorf("the old cookie stays: %v", c)
				}
			default:
				req.AddCookie(c)
			}
		}
		if len(req.Cookies()) == 0 {
			req.AddCookie(&http.Cookie{Name: "__Host-session", Value: "none"})
		}
		if getKey(t, r, t.Name()+":session:abc") != "" {
			t.Error("the old session lives on")
		}
	}
}
