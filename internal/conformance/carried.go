package conformance

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// Carried is an application whose answers are as different as answers can be, to
// find out what reaches a client through a middleware of net/http that a
// framework carries. Its routes, each in the framework's own words:
//
//	GET  /page            200 "page" with the headers X-Page: 1 and Link twice
//	GET  /status/{code}   the status, and nothing else
//	POST /status/{code}
//	GET  /redirect        302 to /page
//	POST /redirect
//	GET  /file            File, with all that the framework can of files
//	GET  /json            {"a":1} with the status 203
//	GET  /empty           nothing
//	GET  /error           the framework's error 418 "teapot"
//	POST /error
//	GET  /broken          an error that the framework does not know
//	GET  /panic           panic("carried")
//	GET  /big             64 KiB, in as many writes as the framework has
//	GET  /stream          "one\n", flushed, "two\n"
//	GET  /upgrade         101, and the connection is taken over: "hello"
//	POST /echo            its body
//	GET  /reload          Reload: 200 with the text, or the status it says
//
// The framework's own recovery of panics is outside of all.
type Carried struct {
	File string
	// Around is the middleware of net/http, carried by Use. Nil: none.
	Around func(http.Handler) http.Handler
	// Late: the framework sends nothing before the handler has ended.
	Late bool
	runs atomic.Int64
	kind atomic.Value
}

// Reload is what GET /reload does: the headers, and a status with or without a
// text.
func (a *Carried) Reload(set func(name, value string)) (status int, text string) {
	set("Cache-Control", "max-age=1, stale-while-revalidate=60, stale-if-error=600")
	if n := a.runs.Add(1); n == 1 {
		return 200, "page"
	}
	time.Sleep(20 * time.Millisecond)
	kind, _ := a.kind.Load().(string)
	if kind == "slow" {
		time.Sleep(slow)
	}
	status = 200
	_, _ = fmt.Sscanf(kind, "%d %s", &status, &text)
	return status, text
}

type ask struct {
	name, method, path string
	headers            []string
	body               string
}

var asks = []ask{
	{"page", "GET", "/page", nil, ""},
	{"page, gzip", "GET", "/page", []string{"Accept-Encoding", "gzip"}, ""},
	{"page, no URL like it", "GET", "/page?a=b%20c", nil, ""},
	{"HEAD page", "HEAD", "/page", nil, ""},
	{"404 without a body", "GET", "/status/404", nil, ""},
	{"204", "GET", "/status/204", nil, ""},
	{"304", "GET", "/status/304", nil, ""},
	{"401", "GET", "/status/401", nil, ""},
	{"500 without a body", "GET", "/status/500", nil, ""},
	{"POST 404", "POST", "/status/404", nil, ""},
	{"POST 204", "POST", "/status/204", nil, ""},
	{"redirect", "GET", "/redirect", nil, ""},
	{"POST redirect", "POST", "/redirect", nil, ""},
	{"file", "GET", "/file", nil, ""},
	{"HEAD file", "HEAD", "/file", nil, ""},
	{"range", "GET", "/file", []string{"Range", "bytes=2-5"}, ""},
	{"bad range", "GET", "/file", []string{"Range", "bytes=900-"}, ""},
	{"not modified", "GET", "/file", []string{"If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"}, ""},
	{"json", "GET", "/json", nil, ""},
	{"empty", "GET", "/empty", nil, ""},
	{"HEAD empty", "HEAD", "/empty", nil, ""},
	{"returned error", "GET", "/error", nil, ""},
	{"HEAD returned error", "HEAD", "/error", nil, ""},
	{"returned error, gzip", "GET", "/error", []string{"Accept-Encoding", "gzip"}, ""},
	{"POST returned error", "POST", "/error", nil, ""},
	{"unknown error", "GET", "/broken", nil, ""},
	{"panic", "GET", "/panic", nil, ""},
	{"big", "GET", "/big", nil, ""},
	{"stream", "GET", "/stream", nil, ""},
	{"upgrade", "GET", "/upgrade", []string{"Connection", "Upgrade", "Upgrade", "echo"}, ""},
	{"no route", "GET", "/none", nil, ""},
	{"POST no route", "POST", "/none", nil, ""},
	{"HEAD no route", "HEAD", "/none", nil, ""},
	{"wrong method", "DELETE", "/page", nil, ""},
	{"body", "POST", "/echo", nil, "some text"},
	{"no body", "POST", "/echo", nil, ""},
	{"preflight", "OPTIONS", "/page", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "GET"}, ""},
}

type stack struct {
	name   string
	around func(http.Handler) http.Handler
	twice  bool // ask again: the second answer is the same
	not    string
}

func (k *Kit) stacks(t *testing.T) []stack {
	t.Helper()
	limit, err := ratelimit.New(k.Redis, "carried", ratelimit.Options{Rate: ratelimit.PerMinute(1_000_000), FailPolicy: madcrow.FailClosed})
	if err != nil {
		t.Fatal(err)
	}
	limited := ratelimit.Middleware(limit, ratelimit.ByPath(), ratelimit.MiddlewareOptions{})
	pages := func(opt httpcache.Options) func(http.Handler) http.Handler {
		c, err := httpcache.New(k.Redis, fmt.Sprint("pages", opt.DefaultTTL), opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c.Middleware
	}
	touched := func(next http.Handler) http.Handler {
		return k.Session(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := k.Sessions.From(r.Context()).Update(r.Context(), func(d *Data) error { d.Visits++; return nil }); err != nil {
				t.Error(err)
			}
			next.ServeHTTP(w, r)
		}))
	}
	return []stack{
		{name: "identity", around: func(h http.Handler) http.Handler { return h }},
		{name: "session", around: k.Session},
		{name: "session, touched", around: touched},
		{name: "limit", around: limited},
		{name: "Recover", around: k.Recover, not: "panic"}, // that is a problem then
		{name: "all three", around: func(h http.Handler) http.Handler { return k.Recover(limited(touched(h))) }, not: "panic"},
		{name: "MaxBytesHandler", around: func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 100) }},
		{name: "compression", around: compressed},
		// In net/http, too, no handler can flush or take a connection over behind it.
		{name: "TimeoutHandler", around: func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "late") }, not: "upgrade stream"},
		{name: "pages", around: pages(httpcache.Options{}), twice: true},
		{name: "pages with a DefaultTTL", around: pages(httpcache.Options{DefaultTTL: time.Minute}), twice: true},
		{name: "compressed pages with sessions and limits", around: func(h http.Handler) http.Handler {
			return k.Recover(compressed(limited(k.Session(pages(httpcache.Options{DefaultTTL: time.Hour})(h)))))
		}, twice: true, not: "panic"},
	}
}

// compressed is as compression is done with net/http.
func compressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" || r.Method == http.MethodHead || r.Header.Get("Upgrade") != "" {
			next.ServeHTTP(w, r)
			return
		}
		cw := &compressing{ResponseWriter: w}
		defer cw.close()
		next.ServeHTTP(cw, r)
	})
}

type compressing struct {
	http.ResponseWriter
	begun bool
	gz    *gzip.Writer
}

func (w *compressing) WriteHeader(status int) {
	if !w.begun {
		w.begun = true
		if status != http.StatusNoContent && status != http.StatusNotModified {
			w.Header().Del("Content-Length")
			w.Header().Set("Content-Encoding", "gzip")
			w.gz = gzip.NewWriter(w.ResponseWriter)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *compressing) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.gz == nil {
		return w.ResponseWriter.Write(b)
	}
	return w.gz.Write(b)
}

func (w *compressing) FlushError() error {
	if w.gz != nil {
		_ = w.gz.Flush()
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *compressing) close() {
	if w.gz != nil {
		_ = w.gz.Close()
	}
}

// seen is an answer as far as a middleware may not change it.
type seen struct {
	status int
	header string
	body   string
}

// CarriedRun serves the application without a middleware and with each stack,
// and compares the answer to each request.
func CarriedRun(t *testing.T, build func(*testing.T, *Carried) Serve) {
	k := newKit(t)
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, []byte("<p>the file</p>"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(t *testing.T, around func(http.Handler) http.Handler) (*Carried, string) {
		a := &Carried{File: file, Around: around}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(build(t, a)(ln))
		return a, ln.Addr().String()
	}
	want := map[string]seen{}
	_, addr := serve(t, nil)
	for _, q := range asks {
		want[q.name] = q.ask(t, addr)
	}
	equal, all := 0, 0
	for _, s := range k.stacks(t) {
		t.Run(s.name, func(t *testing.T) {
			_, addr := serve(t, s.around)
			for _, q := range asks {
				if strings.Contains(" "+s.not+" ", " "+q.name+" ") {
					continue
				}
				times := 1
				if s.twice {
					times = 2
				}
				for n := range times {
					all++
					if got := q.ask(t, addr); got != want[q.name] {
						t.Errorf("%s, %d: %+v, want %+v", q.name, n+1, got, want[q.name])
						continue
					}
					equal++
				}
			}
		})
	}
	t.Logf("%d of %d answers through carried middlewares are those of the framework alone", equal, all)

	for _, c := range []struct{ kind, after string }{
		{"200 new", "new"}, {"404 gone", "404 gone"}, {"500 broken", "page"}, {"204", "204"},
	} {
		t.Run("reload "+c.kind, func(t *testing.T) { t.Parallel(); reload(t, k, serve, c.kind, c.after) })
	}
	t.Run("file validated", func(t *testing.T) { t.Parallel(); validated(t, k, serve) })
	t.Run("TimeoutHandler late", func(t *testing.T) { t.Parallel(); late(t, serve) })
}

// ask asks on a connection of its own.
func (q ask) ask(t *testing.T, addr string) seen {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	text := q.method + " " + q.path + " HTTP/1.1\r\nHost: carried.example\r\n"
	for i := 0; i < len(q.headers); i += 2 {
		text += q.headers[i] + ": " + q.headers[i+1] + "\r\n"
	}
	if q.body != "" || q.method == "POST" {
		text += fmt.Sprintf("Content-Length: %d\r\n", len(q.body))
	}
	if _, err := conn.Write([]byte(text + "\r\n" + q.body)); err != nil {
		return seen{body: "write: " + err.Error()}
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: q.method})
	if err != nil {
		return seen{body: "cut: " + errors.Unwrap(fmt.Errorf("%w", err)).Error()}
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusSwitchingProtocols {
		hello := make([]byte, 5)
		_, err := io.ReadFull(in, hello)
		return seen{status: 101, body: fmt.Sprint(string(hello), err)}
	}
	var body io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" && q.method != "HEAD" {
		if body, err = gzip.NewReader(body); err != nil {
			return seen{res.StatusCode, "", "gzip: " + err.Error()}
		}
	}
	b, err := io.ReadAll(body)
	got := seen{status: res.StatusCode, body: ids.ReplaceAllString(string(b), "ID")}
	if err != nil {
		got.body += " and then " + err.Error()
	}
	// What is the connection's, and what the middlewares add.
	h := res.Header
	for _, name := range []string{
		"Date", "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Encoding", "Cache-Status", "Age", "Etag", "Ratelimit", "Ratelimit-Policy",
		"Set-Cookie", "Cache-Control", "Vary", "Content-Length", "X-Content-Type-Options",
	} {
		h.Del(name)
	}
	if got.status == http.StatusNotModified { // a cache tells more than it must
		h.Del("Accept-Ranges")
		h.Del("Last-Modified")
	}
	if q.method == "HEAD" { // it may be made of a stored answer to GET
		h.Del("Content-Type")
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		got.header += fmt.Sprintf("%s: %s\n", name, strings.Join(h[name], " | "))
	}
	return got
}

// ids are those of problems.
var ids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)

type server func(*testing.T, func(http.Handler) http.Handler) (*Carried, string)

// reload is a page that is loaded again behind a stale answer,
// when the framework has long used its context for others.
func reload(t *testing.T, k *Kit, serve server, kind, after string) {
	pages, err := httpcache.New(k.Redis, "reload"+strings.ReplaceAll(kind, " ", "-"), httpcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pages.Close(context.Background()) }()
	a, addr := serve(t, pages.Middleware)
	a.kind.Store(kind)
	q := ask{method: "GET", path: "/reload"}
	if got := q.ask(t, addr); got.body != "page" {
		t.Fatalf("%+v", got)
	}
	time.Sleep(1100 * time.Millisecond)
	if got := q.ask(t, addr); got.body != "page" || got.status != 200 {
		t.Errorf("stale: %+v", got)
	}
	status, text := 200, after
	if n, _ := fmt.Sscanf(after, "%d", &status); n == 1 {
		_, text, _ = strings.Cut(after, " ")
	}
	var got seen
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		(ask{method: "GET", path: "/page"}).ask(t, addr) // others, meanwhile
		if got = q.ask(t, addr); a.runs.Load() > 1 && got.status == status && strings.Contains(got.body, text) {
			return
		}
	}
	t.Errorf("after the reload: %+v, want %d %q", got, status, text)
}

// validated is a stored file whose 304 keeps it.
func validated(t *testing.T, k *Kit, serve server) {
	pages, err := httpcache.New(k.Redis, "validated", httpcache.Options{DefaultTTL: time.Second, StaleIfError: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pages.Close(context.Background()) }()
	_, addr := serve(t, pages.Middleware)
	for n := range 2 {
		if got := (ask{method: "GET", path: "/file"}).ask(t, addr); got.status != 200 || got.body != "<p>the file</p>" {
			t.Errorf("%d: %+v", n, got)
		}
		time.Sleep(1100 * time.Millisecond)
	}
}

// late is a handler that takes longer than its time: the client has its answer in time,
// and the next request is not answered by it. It is slow itself, or begins when
// the framework has gone on.
func late(t *testing.T, serve server) {
	a, addr := serve(t, func(h http.Handler) http.Handler {
		return http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/json" {
				time.Sleep(slow)
			}
			h.ServeHTTP(w, r)
		}), 50*time.Millisecond, "late")
	})
	a.runs.Add(1)
	a.kind.Store("slow")
	for _, path := range []string{"/reload", "/json"} {
		begun := time.Now()
		if got := (ask{method: "GET", path: path}).ask(t, addr); got.status != 503 || got.body != "late" {
			t.Errorf("%s: %+v", path, got)
		}
		if took := time.Since(begun); took > slow-50*time.Millisecond && !a.Late {
			t.Errorf("%s: answered after %v", path, took)
		}
		for range 20 {
			if got := (ask{method: "GET", path: "/page"}).ask(t, addr); got.status != 200 || got.body != "page" {
				t.Errorf("%s: %+v", path, got)
			}
		}
	}
}

const slow = 600 * time.Millisecond
