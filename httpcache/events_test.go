package httpcache_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// listener keeps what was reported, as "httpcache.hit near".
type listener struct {
	madcrow.NopRecorder
	mu  sync.Mutex
	all []string
}

func (l *listener) Event(_ context.Context, e madcrow.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Name == "pages" {
		l.all = append(l.all, strings.TrimSpace(e.Type.String()+" "+e.Reason))
	}
}

// take returns what was reported of this package since the last call.
func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(l.all, func(text string) bool { return !strings.HasPrefix(text, "httpcache.") })
	l.all = nil
	return all
}

func TestEvents_SayWhyAResponseWasServedAndWhyItIsNotStored(t *testing.T) {
	events := &listener{}
	cfg := ownConfig(t)
	cfg.Recorder = events
	s := newSite(t, openConfig(t, cfg), httpcache.Options{MaxBody: 10}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private")
		case "/silent":
			w.Header().Del("Cache-Control")
		case "/vary":
			w.Header().Set("Vary", "*")
		case "/tags":
			w.Header().Set("Cache-Tag", strings.Repeat("x", 1000))
		case "/large":
			_, _ = io.WriteString(w, "more than ten bytes")
		case "/incomplete":
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "one")
		}
	})
	for _, tc := range []struct {
		path, header string
		want         []string
	}{
		{"/", "", []string{"httpcache.miss uri-miss", "httpcache.stored"}},
		{"/", "", []string{"httpcache.hit redis"}},
		{"/private", "", []string{"httpcache.miss uri-miss", "httpcache.not_stored forbidden"}},
		{"/private", "", []string{"httpcache.pass"}},
		{"/silent", "", []string{"httpcache.miss uri-miss", "httpcache.not_stored no_lifetime"}},
		{"/vary", "", []string{"httpcache.miss uri-miss", "httpcache.not_stored vary"}},
		{"/large", "", []string{"httpcache.miss uri-miss", "httpcache.not_stored too_large"}},
		{"/incomplete", "", []string{"httpcache.miss uri-miss", "httpcache.not_stored incomplete"}},
		{"/own", "Authorization: Bearer x", []string{"httpcache.miss uri-miss", "httpcache.not_stored credentials"}},
	} {
		var headers []string
		if tc.header != "" {
			headers = append(headers, tc.header)
		}
		s.get(tc.path, headers...)
		var got []string
		testkit.Eventually(t, "the events of "+tc.path, func() bool { // the load may end after its response
			got = append(got, events.take()...)
			return len(got) >= len(tc.want)
		})
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.path, got, tc.want)
		}
	}
}

// A handler that failed behind stale responses was not counted, and nothing was in
// the log.
func TestEvents_AHandlerThatFailsBehindStaleResponsesIsSaidOnce(t *testing.T) {
	events, log := &listener{}, &testkit.Log{}
	cfg := ownConfig(t)
	cfg.Recorder = events
	var broken atomic.Bool
	s := newSite(t, openConfig(t, cfg), httpcache.Options{Logger: log.Logger()}, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1, stale-if-error=600")
		_, _ = io.WriteString(w, "page")
	})
	s.get("/")
	time.Sleep(1100 * time.Millisecond)
	broken.Store(true)
	for range 3 {
		if res := s.get("/"); res.StatusCode != 200 || body(t, res) != "page" {
			t.Fatalf("%d %v", res.StatusCode, res.Header)
		}
	}
	var got []string
	testkit.Eventually(t, "three stale responses", func() bool {
		got = append(got, events.take()...)
		return strings.Count(strings.Join(got, ","), "httpcache.stale if_error") == 3
	})
	lines := log.With("a load failed")
	if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "the handler answered 502") || !strings.Contains(lines[0], "stale_until=") {
		t.Errorf("%q", lines)
	}
	broken.Store(false)
	testkit.Eventually(t, "a new page", func() bool { return s.get("/").Header.Get("Age") == "" })
	log.Await(t, 1, "loads succeed again", 5*time.Second)
}
