package session_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

// Whatever a handler says of caching, an answer with the cookie is not kept.
func TestHTTP_AnswersWithTheCookieAreNeverStored(t *testing.T) {
	m := newManager(t, open(t), options{})
	update := func(r *http.Request) { must(t, m.From(r.Context()).Update(r.Context(), add("x"))) }
	endings := map[string]func(http.ResponseWriter, *http.Request){
		"nothing":  func(http.ResponseWriter, *http.Request) {},
		"header":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) },
		"write":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) },
		"string":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") },
		"copy":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("x")) },
		"flush":    func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		"control":  func(w http.ResponseWriter, _ *http.Request) { must(t, http.NewResponseController(w).Flush()) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/nothing", http.StatusSeeOther) },
		"error":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", 500) },
		"content": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "x.txt", time.Unix(1, 0), strings.NewReader("x"))
		},
	}
	s := newSite(t, m, func(mux *http.ServeMux) {
		for name, end := range endings {
			mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=3600")
				update(r)
				w.Header().Set("Cache-Control", "public, max-age=3600")
				w.Header().Add("Set-Cookie", "theme=dark")
				end(w, r)
			})
		}
	})
	for name := range endings {
		b := s.browser()
		b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, _ := b.get("/" + name)
		if res.Header.Get("Cache-Control") != "no-store" || b.token() == "" || len(res.Cookies()) != 2 {
			t.Errorf("%s: %v", name, res.Header)
		}
		if res, _ = b.get("/" + name); res.Header.Get("Cache-Control") != "public, max-age=3600" && name != "error" {
			t.Errorf("%s, without the cookie: %v", name, res.Header)
		}
	}
}

// Of several changes in one request the last cookie counts, once.
func TestHTTP_OneCookieForManyChanges(t *testing.T) {
	m := newManager(t, open(t), options{})
	var shown []string
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/many", func(w http.ResponseWriter, r *http.Request) {
			s := m.From(r.Context())
			must(t, s.Update(r.Context(), add("x")))
			shown = w.Header()["Set-Cookie"]
			must(t, s.Login(r.Context(), "alice", session.Remember()))
			must(t, s.Rotate(r.Context()))
			if r.FormValue("out") != "" {
				must(t, s.Logout(r.Context()))
				must(t, s.AddFlash(r.Context(), "info", "bye"))
			}
			fmt.Fprint(w, s.Token())
		})
	})
	for _, path := range []string{"/many", "/many?out=1"} {
		b := s.browser()
		res, token := b.get(path)
		if c := res.Cookies(); len(c) != 1 || c[0].Value != token || b.token() != token || len(shown) != 1 {
			t.Errorf("%s: %v, want %s; shown %v", path, c, token, shown)
		}
		b.want("/me", 200, map[string]string{"/many": "alice true x", "/many?out=1": " true "}[path])
	}
}

func TestHTTP_TwoCookiesOfOneNameAreNone(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{}), nil)
	b := s.browser()
	b.want("/login?user=alice", 200, "")
	own := b.token()
	b.want("/add?item=x", 200, "")
	for name, line := range map[string]string{
		"first":  "__Host-session=" + own + "; __Host-session=" + strings.Repeat("A", 56),
		"second": "__Host-session=" + strings.Repeat("A", 56) + "; __Host-session=" + own,
		"same":   "__Host-session=" + own + "; __Host-session=" + own,
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.srv.URL+"/private", nil)
		req.Header.Set("Cookie", line)
		res, err := s.srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 401 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
}

// No one knows which of them is the client's own: a logout leaves none.
func TestHTTP_LogoutOfTwoCookiesOfOneNameEndsBoth(t *testing.T) {
	m := newManager(t, open(t), options{})
	first, second := login(t, m, "alice").Token(), login(t, m, "mallory").Token()
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Cookie", "__Host-session="+first+"; other=x; __Host-session="+second+"; __Host-session=nonsense")
	w := httptest.NewRecorder()
	m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		must(t, m.From(r.Context()).Logout(r.Context()))
	})).ServeHTTP(w, r)
	for name, token := range map[string]string{"first": first, "second": second} {
		if alive(t, m, token) {
			t.Errorf("the %s is alive", name)
		}
	}
	if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("%v", c)
	}
}

// A handler may replace the headers after the cookie was put there, as
// http.TimeoutHandler does, and httputil.ReverseProxy after a 1xx.
func TestHTTP_CookieSurvivesThatHeadersAreReplaced(t *testing.T) {
	m := newManager(t, open(t), options{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(204)
	}))
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	must(t, err)
	user := func(r *http.Request) { must(t, m.From(r.Context()).Login(r.Context(), "alice")) }
	for name, h := range map[string]http.Handler{
		"TimeoutHandler": http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user(r)
			http.SetCookie(w, &http.Cookie{Name: "csrf", Value: "x"})
			w.WriteHeader(204)
		}), time.Minute, "late"),
		"ReverseProxy": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user(r)
			httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
		}),
	} {
		front := httptest.NewServer(m.Middleware(madcrow.FailClosed)(h))
		req, _ := http.NewRequestWithContext(t.Context(), "POST", front.URL, nil)
		res, err := front.Client().Do(req)
		must(t, err)
		_ = res.Body.Close()
		front.Close()
		found := false
		for _, c := range res.Cookies() {
			found = found || c.Name == "__Host-session" && alive(t, m, c.Value)
		}
		if !found || res.StatusCode != 204 || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", name, res.StatusCode, res.Header)
		}
	}
}

func TestHTTP_StreamsAfterTheCookie(t *testing.T) {
	m := newManager(t, open(t), options{})
	ready := make(chan struct{})
	var late, saved error
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
			s := m.From(r.Context())
			must(t, s.Update(r.Context(), add("x")))
			rc := http.NewResponseController(w)
			if err := rc.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			}
			if err := rc.EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, "one\n")
			if err := rc.Flush(); err != nil {
				t.Error(err)
			}
			<-ready
			saved = s.Update(r.Context(), add("y")) // needs no cookie
			late = s.Rotate(r.Context())
			fmt.Fprint(w, "two\n")
		})
	})
	b := s.browser()
	res, err := b.client.Get(s.srv.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() || lines.Text() != "one" || b.token() == "" {
		t.Fatalf("%q, token %q", lines.Text(), b.token())
	}
	close(ready)
	if !lines.Scan() || lines.Text() != "two" || saved != nil || !errors.Is(late, session.ErrHeadersSent) {
		t.Errorf("%q, %v, %v", lines.Text(), saved, late)
	}
	b.want("/me", 200, " true x,y") // the rotation without a cookie did not happen
}

func TestHTTP_HijackedConnection(t *testing.T) {
	m := newManager(t, open(t), options{})
	var login, update error
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
			s := m.From(r.Context())
			if user, err := s.User(r.Context()); user != "alice" || err != nil {
				http.Error(w, "who", http.StatusUnauthorized)
				return
			}
			var conn io.Closer
			var rw *bufio.ReadWriter
			var err error
			if r.FormValue("how") == "control" {
				conn, rw, err = http.NewResponseController(w).Hijack()
			} else {
				conn, rw, err = w.(http.Hijacker).Hijack()
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
			_ = rw.Flush()
			line, _ := rw.ReadString('\n')
			update = s.Update(context.WithoutCancel(r.Context()), add(strings.TrimSpace(line)))
			login = s.Login(context.WithoutCancel(r.Context()), "bob")
			_, _ = rw.WriteString("done\n")
			_ = rw.Flush()
		})
	})
	b := s.browser()
	b.want("/login?user=alice", 200, "")
	for _, how := range []string{"direct", "control"} {
		conn, err := tls.Dial("tcp", b.url().Host, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /socket?how=%s HTTP/1.1\r\nHost: x\r\nCookie: __Host-session=%s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", how, b.token())
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		fmt.Fprintf(conn, "%s\n", how)
		if line, err := r.ReadString('\n'); line != "done\n" || err != nil {
			t.Errorf("%q %v", line, err)
		}
		_ = conn.Close()
		if update != nil || !errors.Is(login, session.ErrHeadersSent) {
			t.Errorf("%s: %v, %v", how, update, login)
		}
	}
	b.want("/me", 200, "alice true direct,control")
}

func TestHTTP_EarlyHintsDoNotBeginTheAnswer(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			must(t, m.From(r.Context()).Update(r.Context(), add("x")))
			w.WriteHeader(http.StatusOK)
		})
	})
	b := s.browser()
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil }})
	req, _ := http.NewRequestWithContext(ctx, "GET", s.srv.URL+"/hints", nil)
	res, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if hints != 1 || b.token() == "" {
		t.Errorf("%d hints, token %q", hints, b.token())
	}
}

// What the server cannot do is an error, and does not begin the answer.
func TestHTTP_WhatTheServerCannotDo(t *testing.T) {
	m := newManager(t, open(t), options{})
	h := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Flush: %v", err)
		}
		if _, _, err := rc.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		if err := rc.SetReadDeadline(time.Now()); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("SetReadDeadline: %v", err)
		}
		must(t, m.From(r.Context()).Update(r.Context(), add("x")))
	}))
	w := &bareWriter{h: http.Header{}}
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if len(w.h["Set-Cookie"]) != 1 {
		t.Errorf("%v", w.h)
	}
}

type bareWriter struct{ h http.Header }

func (w *bareWriter) Header() http.Header         { return w.h }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(int)             {}

// A handler that panics after a login or a logout has made them all the same:
// whoever answers for it sends the cookie.
func TestHTTP_CookieSurvivesAPanic(t *testing.T) {
	m := newManager(t, open(t), options{})
	h := problem.Recover(nil)(m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		must(t, m.From(r.Context()).Login(r.Context(), "alice"))
		panic("of a test")
	})))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if res := w.Result(); res.StatusCode != 500 || len(res.Cookies()) != 1 {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// One session is used by goroutines of its handler while that writes, and
// after it returned.
func TestHTTP_GoroutinesOfOneRequest(t *testing.T) {
	m := newManager(t, open(t), options{})
	var after sync.WaitGroup
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/crowd", func(w http.ResponseWriter, r *http.Request) {
			s := m.From(r.Context())
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { must(t, s.Update(r.Context(), add(fmt.Sprint(i)))) })
				w.Header().Set("X-Test", fmt.Sprint(i))
			}
			wg.Wait()
			for i := range 4 {
				after.Go(func() {
					ctx := context.WithoutCancel(r.Context())
					switch i {
					case 0:
						_ = s.Rotate(ctx)
					case 1:
						_ = s.Login(ctx, "alice")
					default:
						_, _, _ = s.Get(ctx)
						_, _, _ = s.Token(), s.Handle(), s.Degraded()
					}
				})
				fmt.Fprint(w, "x")
			}
		})
	})
	for range 10 {
		b := s.browser()
		b.get("/crowd")
		if b.token() == "" {
			t.Error("no cookie")
		}
	}
	after.Wait()
}
