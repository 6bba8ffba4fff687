package madcrowtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

// numbers sends the events after Last-Event-ID, up to 3, and then waits or ends.
func numbers(end bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		after := 0
		_, _ = fmt.Sscan(r.Header.Get("Last-Event-ID"), &after)
		_, _ = fmt.Fprint(w, ": hello\nretry: 10\n\n")
		for id := after + 1; id <= 3; id++ {
			_, _ = fmt.Fprintf(w, "id: %d\r\nevent: number\ndata: n\ndata:%d of %s\n\n", id, id, r.URL.Query().Get("of"))
		}
		_, _ = fmt.Fprint(w, "data: bare\n\n")
		_ = http.NewResponseController(w).Flush()
		if !end {
			<-r.Context().Done()
		}
	})
}

func TestSSE_ReadsEventsAsABrowserDoes(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.OpenSSE(t, numbers(false), httptest.NewRequest("GET", "/events?of=three", nil))
	if e := s.Next(); e != (madcrowtest.SSEEvent{ID: "1", Name: "number", Data: "n\n1 of three"}) {
		t.Errorf("%+v", e)
	}
	s.Want("number", "n\n2 of three")
	s.Reconnect() // without the third, which is sent again
	s.Want("number", "n\n3 of three")
	if e := s.Want("message", "bare"); e.ID != "3" {
		t.Errorf("%+v: an id holds until the next one", e)
	}
	s.None(20 * time.Millisecond)
}

func TestSSE_ReadsAURLToItsEnd(t *testing.T) {
	srv := httptest.NewServer(numbers(true))
	t.Cleanup(srv.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := madcrowtest.OpenSSE(t, nil, req)
	s.Next()
	s.AwaitEnd()
}

func TestSSE_EndsTheTestWhereThereAreNoEvents(t *testing.T) {
	inner := &failing{TB: t}
	inner.run(func() {
		madcrowtest.OpenSSE(inner, http.NotFoundHandler(), httptest.NewRequest("GET", "/", nil))
	})
	if !strings.Contains(inner.text, "404") {
		t.Errorf("%q", inner.text)
	}
	inner = &failing{TB: t}
	inner.run(func() {
		s := madcrowtest.OpenSSE(inner, numbers(true), httptest.NewRequest("GET", "/", nil))
		for range 5 {
			s.Next()
		}
	})
	if !strings.Contains(inner.text, "ended") {
		t.Errorf("%q", inner.text)
	}
}

// failing is a test that ends without the one around it.
type failing struct {
	testing.TB
	text string
}

func (f *failing) run(fn func()) {
	defer func() { _ = recover() }()
	fn()
}

func (f *failing) Fatal(args ...any) { f.Fatalf("%s", fmt.Sprint(args...)) }

func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	panic(f)
}
