package httpcache_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/problem"
)

func TestCache_StreamsAreNotHeldBack(t *testing.T) {
	for name, begin := range map[string]func(w http.ResponseWriter){
		"event stream": func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/event-stream") },
		"private":      func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "private") },
		"Flush":        func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "max-age=60") },
		"under Unwrap": func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "max-age=60") },
		"larger than that": func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "20000006")
		},
	} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{})
			s := newSite(t, open(t), httpcache.Options{LoadTimeout: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
				begin(w)
				_, _ = io.WriteString(w, "first\n")
				if name == "under Unwrap" {
					u, ok := w.(interface{ Unwrap() http.ResponseWriter })
					if !ok {
						t.Error("no Unwrap")
						return
					}
					w = u.Unwrap()
				}
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Errorf("Flush: %v", err)
				}
				<-goOn
				time.Sleep(150 * time.Millisecond) // longer than a load may take
				if err := r.Context().Err(); err != nil {
					t.Errorf("the handler's context: %v", err)
				}
				_, _ = io.WriteString(w, "second\n")
			})
			server := httptest.NewServer(s)
			defer server.Close()
			res, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			lines := bufio.NewReader(res.Body)
			if line, err := lines.ReadString('\n'); line != "first\n" || err != nil {
				t.Errorf("%q %v", line, err)
			}
			if got := res.Header.Get("Cache-Status"); got != "madcrow; fwd=uri-miss" {
				t.Errorf("%q", got)
			}
			close(goOn)
			if line, err := lines.ReadString('\n'); line != "second\n" || err != nil {
				t.Errorf("%q %v", line, err)
			}
		})
	}
}

func TestCache_StreamEndsWithItsClient(t *testing.T) {
	ended := make(chan struct{})
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	server := httptest.NewServer(s)
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	_ = res.Body.Close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the handler goes on")
	}
}

func TestCache_LargeBodiesPassThrough(t *testing.T) {
	const size = 3 << 20
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		n := size
		if r.URL.Path == "/max" {
			n = 1 << 20
		}
		_, _ = io.Copy(w, io.LimitReader(endless{}, int64(n)))
	})
	server := httptest.NewServer(s)
	defer server.Close()
	for _, c := range []struct {
		path string
		size int
		hit  bool
	}{{"/", size, false}, {"/max", 1 << 20, true}} {
		for i := range 3 {
			res, err := http.Get(server.URL + c.path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || len(b) != c.size || isHit(res) != (c.hit && i > 0) {
				t.Errorf("%s %d: %d bytes, %v, %v", c.path, i, len(b), err, res.Header)
			}
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestCache_InformationTrailersAndHijack(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/hints":
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "page")
		case "/declared":
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "page")
			w.Header().Set("X-Sum", "1")
		case "/undeclared":
			_, _ = io.WriteString(w, "page"+strings.Repeat(" ", 5000)) // more than net/http gives a length
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		case "/hijack":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage")
			_ = conn.Close()
		case "/deadline":
			c := http.NewResponseController(w)
			if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex()); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, "page")
		}
	})
	server := httptest.NewServer(s)
	defer server.Close()
	for _, path := range []string{"/hints", "/declared", "/undeclared", "/hijack", "/deadline"} {
		for i := range 2 {
			hints := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil },
			})
			r, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || strings.TrimSpace(string(b)) != "page" || isHit(res) != (path == "/deadline" && i > 0) {
				t.Errorf("%s: %q %v %v", path, b, err, res.Header)
			}
			if strings.HasSuffix(path, "declared") && res.Trailer.Get("X-Sum") != "1" {
				t.Errorf("%s: trailer %v", path, res.Trailer)
			}
			if (path == "/hints") != (hints == 1) {
				t.Errorf("%s: %d times 1xx", path, hints)
			}
		}
	}
}

func TestCache_PanicsPass(t *testing.T) {
	cfg := ownConfig(t)
	var log syncBuffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := newSite(t, openConfig(t, cfg), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/half":
			w.Header().Set("Cache-Control", "private")
			_, _ = io.WriteString(w, "half")
			panic("boom")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		panic("boom")
	})
	for path, want := range map[string]any{"/": "boom", "/half": "boom", "/abort": http.ErrAbortHandler} {
		for range 2 { // the second one within the backoff
			func() {
				defer func() {
					if p := recover(); p != want {
						t.Errorf("%s: recovered %v", path, p)
					}
				}()
				s.get(path)
			}()
		}
	}
	if !strings.Contains(log.String(), "stream_test.go") {
		t.Error("the log lacks the stack")
	}
	if n := strings.Count(log.String(), "a handler panicked"); n != 2 { // at two places, each twice or more
		t.Errorf("%d panics are in the log", n)
	}
	w := httptest.NewRecorder()
	problem.Recover(nil)(s).ServeHTTP(w, request("GET", "/"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// brokenWriter is one that a middleware outside made.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { panic(http.ErrAbortHandler) }

func TestCache_PanicOfAWriterOutsideIsOfItsRequest(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{MaxBody: 10, LoadTimeout: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "12345678")
		switch r.URL.Path {
		case "/large":
			_, _ = io.WriteString(w, "12345678")
		case "/slow":
			time.Sleep(100 * time.Millisecond)
		case "/trailer":
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		}
	})
	for _, path := range []string{"/", "/large", "/slow", "/trailer"} {
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // identity is the promise
					t.Errorf("%s: recovered %v", path, p)
				}
			}()
			s.ServeHTTP(brokenWriter{httptest.NewRecorder()}, request("GET", path))
		}()
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestCache_SlowHandlerIsWaitedForByItsClient(t *testing.T) {
	type key struct{}
	s := newSite(t, open(t), httpcache.Options{LoadTimeout: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if _, err := io.WriteString(w, "user "); err != nil {
			t.Error(err)
		}
		for range 100 { // what is written late comes too late
			w.Header().Set("X-Late", "1")
			time.Sleep(time.Millisecond)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-r.Context().Done():
			t.Errorf("%v", r.Context().Err())
		}
		_, _ = fmt.Fprint(w, r.Context().Value(key{}))
	})
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, request("GET", "/").WithContext(context.WithValue(t.Context(), key{}, i)))
			if w.Code != 200 || w.Body.String() != fmt.Sprint("user ", i) || w.Header().Get("X-Late") != "" && w.Header().Get("Cache-Status") == "" {
				t.Errorf("%d: %d %q %v", i, w.Code, w.Body, w.Header())
			}
		})
	}
	wg.Wait()
}

// A request whose time is over before Redis has answered does not run its
// handler: it hung where that did not look at the context.
func TestCache_RequestsThatAreOverDoNotRunTheirHandler(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request("GET", "/").WithContext(ctx))
	if w.Code != 504 || w.Header().Get("Content-Type") != problem.ContentType {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestCache_DeadlineOfARequestIsKept(t *testing.T) {
	release := make(chan struct{})
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		<-release
		set(200, "Cache-Control: max-age=60")(w, r)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request("GET", "/").WithContext(ctx))
	if w.Code != 504 || w.Header().Get("Content-Type") != problem.ContentType {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	close(release)
	testkit.Eventually(t, "that the response is stored", func() bool { return isHit(s.get("/")) })
}

func TestCache_OptionsAreChecked(t *testing.T) {
	r := open(t)
	for field, opt := range map[string]httpcache.Options{
		"MaxTTL":       {MaxTTL: time.Millisecond},
		"MinTTL":       {MinTTL: 48 * time.Hour},
		"DefaultTTL":   {DefaultTTL: -1},
		"MaxStale":     {MaxStale: -1},
		"StaleIfError": {StaleIfError: -1},
		"PassTTL":      {PassTTL: time.Millisecond},
		"MaxBody":      {MaxBody: 1 << 40},
		"StatusName":   {StatusName: "a b"},
		"LoadTimeout":  {LoadTimeout: time.Nanosecond},
	} {
		_, err := httpcache.New(r, "pages", opt)
		var bad *madcrow.ArgumentError
		if !errors.As(err, &bad) || bad.Argument != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := httpcache.New(r, "a b", httpcache.Options{MaxTTL: -1, MaxLoads: -1})
	if text := fmt.Sprint(err); !strings.Contains(text, "name ") || !strings.Contains(text, "MaxTTL ") || !strings.Contains(text, "MaxLoads ") {
		t.Errorf("not all that is wrong is said: %v", err)
	}
	s := newSite(t, r, httpcache.Options{StatusName: "-", Tags: func(*http.Request) []string { return []string{""} }}, set(200, "Cache-Control: max-age=60"))
	s.get("/")
	if got := s.get("/"); body(t, got) != "body 2" || got.Header.Get("Cache-Status") != "" {
		t.Errorf("a tag that is none: %v", got.Header)
	}
}
