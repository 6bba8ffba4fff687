package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
)

// Serve serves the application until stop is called.
type Serve func(net.Listener) (stop func())

// HTTP serves a handler.
func HTTP(h http.Handler) Serve {
	return func(ln net.Listener) func() {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(ln) }()
		return func() { _ = srv.Close(); <-done }
	}
}

// Run builds the application and asks it for all that it promises.
func Run(t *testing.T, build func(*testing.T, *Kit) Serve) {
	k := newKit(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(build(t, k)(ln))
	a := &app{k: k, url: "http://" + ln.Addr().String(), leak: leaks(k.server.Port())}

	t.Run("Injection", func(t *testing.T) { injection(t, a) })
	t.Run("Sessions", func(t *testing.T) { sessions(t, a) })
	t.Run("Limit", func(t *testing.T) { limit(t, a) })
	t.Run("Errors", func(t *testing.T) { failing(t, a) })
	t.Run("Validation", func(t *testing.T) { validation(t, a) })
	t.Run("Stream", func(t *testing.T) { stream(t, a) })
	t.Run("ManyAtOnce", func(t *testing.T) { crowd(t, a) })
	t.Run("Health", func(t *testing.T) { healthy(t, a) })
	t.Run("WithoutRedis", func(t *testing.T) { without(t, a) })
}

type app struct {
	k    *Kit
	url  string
	leak *regexp.Regexp
}

// leaks finds what no answer may hold: texts of Redis, of the network and of
// Go, addresses, keys.
func leaks(port int) *regexp.Regexp {
	return regexp.MustCompile(`WRONGTYPE|NOAUTH|\bERR\b|dial tcp|127\.0\.0\.1|localhost|refused|i/o timeout|` + regexp.QuoteMeta(prefix) +
		`|m1:|alice:|madcrow:|goroutine|\.go:|foreign:|\*errors|:` + strconv.Itoa(port) + `\b`)
}

type answer struct {
	Reply
	status  int
	header  http.Header
	text    string
	problem problem.Problem
	took    time.Duration
}

// client is a browser.
type client struct {
	*app
	jar *cookiejar.Jar
}

func (a *app) client(t *testing.T) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &client{a, jar}
}

// do asks; headers are names and values in turn.
func (c *client) do(t *testing.T, method, path, body string, headers ...string) (a answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return a
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	begin := time.Now()
	res, err := (&http.Client{Jar: c.jar, Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		t.Error(err)
		return a
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	a.status, a.header, a.text, a.took = res.StatusCode, res.Header, string(text), time.Since(begin)
	c.check(t, method+" "+path, &a)
	return a
}

// check is what every answer must be.
func (a *app) check(t *testing.T, what string, got *answer) {
	t.Helper()
	if found := a.leak.FindString(fmt.Sprint(got.header, got.text)); found != "" {
		t.Errorf("%s tells %q: %v %s", what, found, got.header, got.text)
	}
	if got.status < 400 {
		if strings.HasPrefix(got.text, "{") {
			if err := json.Unmarshal([]byte(got.text), &got.Reply); err != nil {
				t.Errorf("%s: %v in %s", what, err, got.text)
			}
		}
		return
	}
	if ct := got.header.Get("Content-Type"); ct != problem.ContentType {
		t.Errorf("%s: %d of type %q: %s", what, got.status, ct, got.text)
		return
	}
	p := &got.problem
	if err := json.Unmarshal([]byte(got.text), p); err != nil {
		t.Errorf("%s: %v in %s", what, err, got.text)
		return
	}
	if p.Status != got.status || !p.Error || p.Code == "" || p.Message == "" || p.Title == "" || len(p.ErrorID) != 36 {
		t.Errorf("%s: not all of a problem: %d %s", what, got.status, got.text)
	}
	if got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") == "" {
		t.Errorf("%s: 503 without Retry-After", what)
	}
	if n := a.k.log.lines(p.ErrorID); !strings.Contains(what, "/health") && n != 1 {
		t.Errorf("%s: %d lines of the log have the error_id %s", what, n, p.ErrorID)
	}
}

// want is a problem.
func (a answer) want(t *testing.T, status int, code string) {
	t.Helper()
	if a.status != status || a.problem.Code != code {
		t.Errorf("%d %s, want %d %s: %s", a.status, a.problem.Code, status, code, a.text)
	}
}

// ok is a 200 with a reply.
func (a answer) ok(t *testing.T, want Reply) {
	t.Helper()
	if a.status != http.StatusOK || a.Reply != want {
		t.Errorf("%d %+v, want %+v: %s", a.status, a.Reply, want, a.text)
	}
}

func injection(t *testing.T, a *app) {
	c := a.client(t)
	c.do(t, "GET", "/plain", "").ok(t, Reply{Value: "hello"})
	c.do(t, "GET", "/store/a", "").ok(t, Reply{})
	a.k.server.Do(t, "SET", prefix+"a", "v")
	c.do(t, "GET", "/store/a", "").ok(t, Reply{Value: "v", Found: true})
	c.do(t, "GET", "/optional", "").ok(t, Reply{Available: true})
	for range 2 { // built again for each request, once within it
		before := a.k.built.Load()
		c.do(t, "GET", "/caller", "", "X-User", "bob").ok(t, Reply{Value: "hello bob", User: "bob", Built: before + 1})
	}
	c.do(t, "GET", "/caller", "").want(t, 401, "WHO")

	restore := inject.Override(a.k.Store, &Store{})
	c.do(t, "GET", "/store/a", "").ok(t, Reply{Value: "overridden"})
	restore()
	c.do(t, "GET", "/store/a", "").ok(t, Reply{Value: "v", Found: true})
}

func sessions(t *testing.T, a *app) {
	c := a.client(t)
	c.do(t, "GET", "/session", "").ok(t, Reply{})
	first := c.do(t, "POST", "/session", "")
	first.ok(t, Reply{Visits: 1, Found: true})
	one := cookieOf(t, first)
	if first.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a caller's cookie may be stored: %v", first.header)
	}
	again := c.do(t, "POST", "/session", "")
	again.ok(t, Reply{Visits: 2, Found: true})
	if again.header.Get("Set-Cookie") != "" {
		t.Errorf("a cookie without need: %v", again.header)
	}
	failed := a.client(t).do(t, "POST", "/session/fail", "")
	failed.want(t, 410, "FOREIGN")
	cookieOf(t, failed)
	empty := a.client(t).do(t, "POST", "/session/empty", "")
	if cookieOf(t, empty); empty.status != 204 || empty.text != "" {
		t.Errorf("%d %q", empty.status, empty.text)
	}
	c.do(t, "GET", "/session", "").ok(t, Reply{Visits: 2, Found: true})

	login := c.do(t, "POST", "/login/bob", "")
	login.ok(t, Reply{Visits: 2, Found: true, User: "bob"})
	two := cookieOf(t, login)
	rotated := c.do(t, "POST", "/rotate", "")
	rotated.ok(t, Reply{Visits: 2, Found: true, User: "bob"})
	if three := cookieOf(t, rotated); one == two || two == three {
		t.Error("an identifier was kept")
	}
	c.do(t, "GET", "/session", "").ok(t, Reply{Visits: 2, Found: true, User: "bob"})
	a.client(t).do(t, "GET", "/session", "", "Cookie", "session="+one).ok(t, Reply{})

	c = a.client(t) // the session is begun, so its cookie must not get lost
	panicked := c.do(t, "POST", "/login/bob/panic", "")
	panicked.want(t, 500, problem.CodeInternal)
	cookieOf(t, panicked)
	c.do(t, "GET", "/session", "").ok(t, Reply{Found: true, User: "bob"})
}

// cookieOf returns the one cookie that an answer sets.
func cookieOf(t *testing.T, a answer) string {
	t.Helper()
	lines := a.header.Values("Set-Cookie")
	if len(lines) != 1 {
		t.Errorf("cookies %q, want one", lines)
		return ""
	}
	cookie, err := http.ParseSetCookie(lines[0])
	if err != nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Name != "session" {
		t.Errorf("the cookie lost something: %q %v", lines[0], err)
		return ""
	}
	return cookie.Value
}

func limit(t *testing.T, a *app) {
	c := a.client(t)
	for i := range 3 {
		got := c.do(t, "GET", "/limited", "", "X-Client", "one")
		got.ok(t, Reply{Value: "hello"})
		if rest := got.header.Get("RateLimit"); !strings.Contains(rest, "r="+strconv.Itoa(2-i)) || got.header.Get("RateLimit-Policy") == "" {
			t.Errorf("headers %v", got.header)
		}
	}
	denied := c.do(t, "GET", "/limited", "", "X-Client", "one")
	denied.want(t, 429, "QUOTA_EXCEEDED")
	if n, err := strconv.Atoi(denied.header.Get("Retry-After")); err != nil || n < 1 || n > 60 || len(denied.problem.ViolatedPolicies) != 1 {
		t.Errorf("Retry-After %v, %s", denied.header, denied.text)
	}
	c.do(t, "GET", "/limited", "", "X-Client", "two").ok(t, Reply{Value: "hello"})
	c.do(t, "GET", "/limited", "").want(t, 400, "KEY_MISSING")
}

func failing(t *testing.T, a *app) {
	a.k.server.Do(t, "RPUSH", "user:alice:list", "x")
	c := a.client(t)
	for kind, f := range failures {
		got := c.do(t, "GET", "/fail/"+kind, "")
		if got.want(t, f.status, f.code); t.Failed() {
			t.Fatalf("/fail/%s", kind)
		}
	}
	for range 2 {
		c.do(t, "GET", "/panic", "").want(t, 500, problem.CodeInternal)
	}
	if !a.k.log.has("panic: " + Secret) {
		t.Error("the panic is not in the log")
	}
	c.do(t, "GET", "/plain", "").ok(t, Reply{Value: "hello"})
}

func validation(t *testing.T, a *app) {
	c := a.client(t)
	c.do(t, "POST", "/validate", `{"name":"x"}`).ok(t, Reply{Value: "x"})
	wrong := c.do(t, "POST", "/validate", `{"name":""}`)
	wrong.want(t, 422, problem.CodeValidation)
	if len(wrong.problem.Errors) != 1 || wrong.problem.Errors[0].Field != "body.name" || wrong.problem.Errors[0].Message == "" {
		t.Errorf("the member is not named: %s", wrong.text)
	}
	if broken := c.do(t, "POST", "/validate", `{"name": alice:token`); broken.status != 400 {
		t.Errorf("%d: %s", broken.status, broken.text)
	}
}

func stream(t *testing.T, a *app) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", a.url+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.Header.Get("Set-Cookie") == "" || res.StatusCode != 200 {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); line != "one\n" || err != nil {
		t.Fatalf("%q %v", line, err)
	}
	select { // it waits: what was read was flushed
	case a.k.release <- struct{}{}:
	case <-time.After(5 * time.Second):
		t.Fatal("the handler had ended when its first line came")
	}
	if rest, err := io.ReadAll(lines); string(rest) != "two\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// crowd is many clients at once: none gets another's data.
func crowd(t *testing.T, a *app) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c, name := a.client(t), fmt.Sprintf("crowd-%d", i)
			c.do(t, "POST", "/login/"+name, "", "User-Agent", name)
			admitted := 0
			for n := range 6 {
				c.do(t, "POST", "/session", "").ok(t, Reply{Visits: n + 1, Found: true, User: name})
				if got := c.do(t, "GET", "/caller", "", "X-User", name); got.User != name || got.Value != "hello "+name {
					t.Errorf("%s got %s", name, got.text)
				}
				if c.do(t, "GET", "/limited", "", "X-Client", name).status == 200 {
					admitted++
				}
			}
			if admitted != 3 {
				t.Errorf("%s was admitted %d times", name, admitted)
			}
		})
	}
	wg.Wait()
}

func healthy(t *testing.T, a *app) {
	c := a.client(t)
	if got := c.do(t, "GET", "/health/live", ""); got.status != 200 || !strings.Contains(got.text, `"alive"`) {
		t.Errorf("%d %s", got.status, got.text)
	}
	if got := c.do(t, "GET", "/health/ready", ""); got.status != 200 || !strings.Contains(got.text, `"ready"`) {
		t.Errorf("%d %s", got.status, got.text)
	}
	if got := c.do(t, "GET", "/health", ""); got.status != 200 || !strings.Contains(got.text, `"healthy"`) || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", got.status, got.header, got.text)
	}
	a.k.draining.Store(1)
	c.do(t, "GET", "/health/ready", "").want(t, 503, "DRAINING")
	a.k.draining.Store(0)
}

func without(t *testing.T, a *app) {
	c := a.client(t)
	c.do(t, "POST", "/session", "").ok(t, Reply{Visits: 1, Found: true})
	a.k.server.Stop()
	eventually(t, func() bool { return !a.k.Redis.Available() })

	store, err := inject.Get(nil, inject.Maybe(a.k.Store))
	if err != nil || store.Err() == nil {
		t.Errorf("%v %v", err, store.Err())
	}
	fastest := time.Hour
	ran := a.ran()
	for range 5 {
		got := c.do(t, "GET", "/store/a", "")
		got.want(t, 503, "REDIS_UNAVAILABLE")
		fastest = min(fastest, got.took)
	}
	if fastest > 100*time.Millisecond || a.ran() != ran {
		t.Errorf("it took %v, and the handler ran %d times", fastest, a.ran()-ran)
	}
	c.do(t, "GET", "/optional", "").ok(t, Reply{})
	c.do(t, "GET", "/plain", "").ok(t, Reply{Value: "hello"})
	if got := c.do(t, "GET", "/caller", "", "X-User", "bob"); got.User != "bob" {
		t.Errorf("%d %s", got.status, got.text)
	}
	c.do(t, "GET", "/session", "").want(t, 503, "SESSION_UNAVAILABLE")
	c.do(t, "POST", "/session", "").want(t, 503, "SESSION_UNAVAILABLE")
	c.do(t, "GET", "/limited", "", "X-Client", "three").want(t, 503, "LIMIT_UNAVAILABLE")
	if got := c.do(t, "GET", "/health/live", ""); got.status != 200 {
		t.Errorf("%d %s", got.status, got.text)
	}
	c.do(t, "GET", "/health/ready", "").want(t, 503, "REDIS_UNAVAILABLE")
	if got := c.do(t, "GET", "/health", ""); got.status != 200 || !strings.Contains(got.text, `"degraded"`) {
		t.Errorf("%d %s", got.status, got.text)
	}
	c.do(t, "GET", "/panic", "").want(t, 500, problem.CodeInternal)

	restore := inject.Override(a.k.Store, &Store{})
	c.do(t, "GET", "/store/a", "").ok(t, Reply{Value: "overridden"})
	restore()

	a.k.server.Start()
	eventually(t, func() bool { return a.k.Redis.Available() })
	c.do(t, "GET", "/store/a", "").ok(t, Reply{})
	c.do(t, "GET", "/optional", "").ok(t, Reply{Available: true})
}

// ran is how often the handler of /store ran.
func (a *app) ran() int64 { return a.k.theStore.ran.Load() }

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen within 15 s")
		}
	}
}
