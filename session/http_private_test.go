package session_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// An answer that was made with a session said nothing of that to the caches on
// its way, which gave it to others.
func TestHTTP_AnswersMadeWithASessionAreKeptFromOthers(t *testing.T) {
	m := newManager(t, open(t), options{})
	var control string
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
			if control != "" {
				w.Header().Set("Cache-Control", control)
			}
			user, err := m.From(r.Context()).User(r.Context())
			_, _ = fmt.Fprint(w, user, err)
		})
		mux.HandleFunc("/untouched", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=60") })
	})
	known := s.browser()
	known.get("/login?user=alice")
	for _, c := range []struct {
		path, control, known, anonymous, vary string
	}{
		{"/page", "", "private", "", "Cookie"},
		{"/page", "max-age=60", "max-age=60, private", "max-age=60", "Cookie"},
		{"/page", "private", "private", "private", "Cookie"},
		{"/page", "public, max-age=60", "public, max-age=60", "public, max-age=60", ""},
		{"/page", "s-maxage=60", "s-maxage=60", "s-maxage=60", ""},
		{"/untouched", "", "max-age=60", "max-age=60", ""},
	} {
		control = c.control
		for i, h := range []http.Header{header(known, c.path), header(s.browser(), c.path)} {
			if got := strings.Join(h["Cache-Control"], ", "); got != []string{c.known, c.anonymous}[i] || h.Get("Vary") != c.vary {
				t.Errorf("%s %q, %d: %q, Vary %q", c.path, c.control, i, got, h.Get("Vary"))
			}
		}
	}
}

// A name that only holds the word was taken for it.
func TestHTTP_WhatOnlyHoldsTheWordSaysNothingOfCaching(t *testing.T) {
	m := newManager(t, open(t), options{})
	var control, vary string
	s := newSite(t, m, func(mux *http.ServeMux) {
		mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Cache-Control"], w.Header()["Vary"] = []string{control}, []string{vary}
			_, err := m.From(r.Context()).User(r.Context())
			must(t, err)
		})
	})
	known := s.browser()
	known.get("/login?user=alice")
	for _, c := range []struct{ control, vary, wantControl, wantVary string }{
		{"max-age=60", "X-Cookie-Consent", "max-age=60|private", "X-Cookie-Consent|Cookie"},
		{"max-age=60", "Origin , COOKIE", "max-age=60|private", "Origin , COOKIE"},
		{`no-cache="x-public"`, "Origin", `no-cache="x-public"|private`, "Origin|Cookie"},
		{`no-cache="x, public, \"private, y"`, "Cookie", `no-cache="x, public, \"private, y"|private`, "Cookie"},
		{"x-private", "Cookie", "x-private|private", "Cookie"},
		{"max-age=60 , Private", "Cookie", "max-age=60 , Private", "Cookie"},
		{`no-cache="x", PUBLIC`, "Origin", `no-cache="x", PUBLIC`, "Origin"},
		{"S-MaxAge = 60", "Origin", "S-MaxAge = 60", "Origin"},
	} {
		control, vary = c.control, c.vary
		h := header(known, "/page")
		if got := strings.Join(h["Cache-Control"], "|"); got != c.wantControl {
			t.Errorf("Cache-Control %s: %s", c.control, got)
		}
		if got := strings.Join(h["Vary"], "|"); got != c.wantVary {
			t.Errorf("Vary %s: %s", c.vary, got)
		}
	}
}

func header(b *browser, path string) http.Header {
	res, _ := b.get(path)
	return res.Header
}
