package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// running is a shop that runs in this process, so that the race detector sees it.
type running struct {
	url  string
	log  *testkit.Log
	stop func()
	db   *store // the same file

	browsers int
}

// start runs the shop with a Redis, or with none named. It must end by itself.
func start(t *testing.T, s *madcrowtest.Server) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.db")
	for _, name := range []string{"REDIS_URL", "REDIS_HOST", "REDIS_PORT", "DEPLOY_ENV"} {
		t.Setenv(name, "")
	}
	if s != nil {
		t.Setenv("REDIS_HOST", "127.0.0.1")
		t.Setenv("REDIS_PORT", strconv.Itoa(s.Port()))
	}
	t.Setenv("PROXIES", "1") // each browser says where it comes from
	t.Setenv("ADDR", "127.0.0.1:0")
	t.Setenv("DATABASE", file)
	t.Setenv("SESSION_SECRET", strings.Repeat("s", 32))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &running{log: &testkit.Log{}}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, p.log.Logger()) }()
	over := false
	p.stop = func() {
		t.Helper()
		if over {
			return
		}
		over = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Error("it did not end")
		}
	}
	t.Cleanup(p.stop)
	p.log.Await(t, 1, "listening on ", 30*time.Second)
	_, rest, _ := strings.Cut(p.log.With("listening on ")[0], "listening on ")
	p.url = strings.Trim(rest, "\"\n")
	var err error
	if p.db, err = openStore(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.db.Close() })
	return p
}

// browser is a client with cookies of its own.
type browser struct {
	p       *running
	http    http.Client
	address string
}

func (p *running) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.browsers++
	b := &browser{p: p, http: http.Client{Jar: jar, Transport: &http.Transport{}}, address: "192.0.2." + strconv.Itoa(p.browsers)}
	t.Cleanup(b.http.CloseIdleConnections)
	return b
}

// send returns the status and the body, which must come in time.
func (b *browser) send(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", b.address)
	begin := time.Now()
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > testkit.Slack(2*time.Second) {
		t.Errorf("%s %s took %v", method, path, took)
	}
	if (res.StatusCode == 503 || res.StatusCode == 429) && res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s: %d without Retry-After", method, path, res.StatusCode)
	}
	return res.StatusCode, string(text)
}

// want sends, and compares the status and a part of the body.
func (b *browser) want(t *testing.T, method, path, body string, status int, part string) string {
	t.Helper()
	got, text := b.send(t, method, path, body)
	if got != status || !strings.Contains(text, part) {
		t.Fatalf("%s %s: %d %s, want %d with %q", method, path, got, text, status, part)
	}
	return text
}

func (b *browser) login(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, "a login", func() bool {
		status, text := b.send(t, "POST", "/login", `{"user":"ada","password":"lovelace"}`)
		if status != 204 && status != 503 {
			t.Fatalf("login: %d %s", status, text)
		}
		return status == 204
	})
}

// order fills the basket, orders it, and returns the path of the order.
func (b *browser) order(t *testing.T) string {
	t.Helper()
	b.want(t, "PUT", "/basket/lamp", `{"amount":2}`, 200, `"lamp":2`)
	text := b.want(t, "POST", "/orders", "", 202, "orders")
	var out struct{ Orders []int64 }
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Orders) != 1 {
		t.Fatalf("%v, %s", err, text)
	}
	return "/orders/" + strconv.FormatInt(out.Orders[0], 10)
}

func (b *browser) awaitState(t *testing.T, path, state string) {
	t.Helper()
	testkit.Eventually(t, path+" is "+state, func() bool {
		time.Sleep(50 * time.Millisecond) // it is limited
		_, text := b.send(t, "GET", path, "")
		return strings.Contains(text, `"state":"`+state+`"`)
	})
}

// listen reads live updates after an event until there are n messages; it returns
// their data and the id of the last one.
func (b *browser) listen(t *testing.T, after string, n int) (data []string, last string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", b.p.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", b.address)
	req.Header.Set("Last-Event-ID", after)
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	id, event := "", ""
	for lines := bufio.NewScanner(res.Body); len(data) < n && lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			if event == "" || event == "message" {
				data, last = append(data, value), id
			}
		case "":
			event = ""
		}
	}
	return data, last
}
