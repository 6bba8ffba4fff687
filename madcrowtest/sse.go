package madcrowtest

import (
	"bufio"
	"context"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// ssePatience is how long Next waits. It is never a promise.
const ssePatience = 15 * time.Second

// SSEEvent is one server-sent event, as a browser sees it.
type SSEEvent struct {
	// ID is what a browser would send as Last-Event-ID after this event.
	ID string
	// Name is the type of the event. Defaults to "message".
	Name string
	// Data are its lines, joined by "\n".
	Data string
}

// SSE reads server-sent events. Its methods are for the goroutine of the test. Make it
// with [OpenSSE].
type SSE struct {
	t      testing.TB
	req    *http.Request
	client *http.Client

	events chan SSEEvent
	stop   func() // ends the connection; nil when there is none
	lastID string
}

// OpenSSE sends req, and returns when the answer is a stream of events. With a handler
// it is served on a loopback port, and only the path of req matters; with nil the
// request goes where its URL says. The test ends when the answer is something else. The
// connection is closed when the test ends.
//
//	events := madcrowtest.OpenSSE(t, handler, httptest.NewRequest("GET", "/events", nil))
//	events.Want("price", "12")
func OpenSSE(t testing.TB, h http.Handler, req *http.Request) *SSE {
	t.Helper()
	transport := &http.Transport{} // connections of its own, gone with it
	s := &SSE{t: t, req: req.Clone(context.Background()), client: &http.Client{Transport: transport}}
	s.req.RequestURI = "" // httptest.NewRequest sets it
	if h != nil {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		base, err := url.Parse(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		s.req.URL.Scheme, s.req.URL.Host = base.Scheme, base.Host
	}
	t.Cleanup(func() { s.Close(); transport.CloseIdleConnections() })
	s.open()
	return s
}

// Reconnect closes the connection and opens it again, as a browser does: with the id of
// the last event that Next returned as Last-Event-ID. Events that came and that Next
// has not returned are dropped.
func (s *SSE) Reconnect() {
	s.t.Helper()
	s.Close()
	if s.lastID != "" {
		s.req.Header.Set("Last-Event-ID", s.lastID)
	}
	s.open()
}

// Close ends the connection, as a browser that leaves. It is safe to call twice.
func (s *SSE) Close() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

func (s *SSE) open() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	late := time.AfterFunc(ssePatience, cancel)
	res, err := s.client.Do(s.req.Clone(ctx))
	if !late.Stop() || err != nil {
		cancel()
		s.t.Fatalf("madcrowtest: %s %s: no answer within %v: %v", s.req.Method, s.req.URL, ssePatience, err)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 2000))
		_ = res.Body.Close()
		cancel()
		s.t.Fatalf("madcrowtest: %s %s: no events, but %s %q: %s", s.req.Method, s.req.URL, res.Status, kind, text)
	}
	s.events = make(chan SSEEvent, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.events)
		readEvents(ctx, res.Body, s.events)
	}()
	s.stop = func() {
		cancel()
		<-done
		_ = res.Body.Close()
	}
}

// readEvents is the parser of the HTML standard, for streams whose lines end with LF or
// CRLF.
func readEvents(ctx context.Context, body io.Reader, to chan<- SSEEvent) {
	e := SSEEvent{Name: "message"}
	var data []string
	for lines := bufio.NewReader(body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != nil {
				e.Data = strings.Join(data, "\n")
				select {
				case to <- e:
				case <-ctx.Done():
					return
				}
			}
			e, data = SSEEvent{ID: e.ID, Name: "message"}, nil // an id holds until the next one
		case name == "id":
			e.ID = value
		case name == "event" && value != "":
			e.Name = value
		case name == "data":
			data = append(data, value)
		}
	}
}

// Next returns the next event. The test ends when none comes within 15 seconds, or when
// the server ends the stream.
func (s *SSE) Next() SSEEvent {
	s.t.Helper()
	timeout := time.NewTimer(ssePatience)
	defer timeout.Stop()
	select {
	case e, ok := <-s.events:
		if !ok {
			s.t.Fatal("madcrowtest: the stream of events ended")
		}
		s.lastID = e.ID
		return e
	case <-timeout.C:
		s.t.Fatalf("madcrowtest: no event within %v", ssePatience)
	}
	return SSEEvent{}
}

// Want is Next, and ends the test when the event is another one.
func (s *SSE) Want(name, data string) SSEEvent {
	s.t.Helper()
	e := s.Next()
	if e.Name != name || e.Data != data {
		s.t.Fatalf("madcrowtest: the event is %q %q, want %q %q", e.Name, e.Data, name, data)
	}
	return e
}

// None reports an error when an event comes within d.
func (s *SSE) None(d time.Duration) {
	s.t.Helper()
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case e, ok := <-s.events:
		if ok {
			s.t.Errorf("madcrowtest: there should be no event, but there is %q %q", e.Name, e.Data)
		}
	case <-timeout.C:
	}
}

// AwaitEnd drops events until the server ends the stream, and ends the test when it
// does not within 15 seconds.
func (s *SSE) AwaitEnd() {
	s.t.Helper()
	timeout := time.NewTimer(ssePatience)
	defer timeout.Stop()
	for {
		select {
		case _, ok := <-s.events:
			if !ok {
				return
			}
		case <-timeout.C:
			s.t.Fatalf("madcrowtest: the stream of events did not end within %v", ssePatience)
		}
	}
}
