package sse_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

// sseEvent is one event as a browser sees it.
type sseEvent struct{ id, event, data string }

// listener is a client of server-sent events.
type listener struct {
	t      *testing.T
	res    *http.Response
	events chan sseEvent
	leave  context.CancelFunc
	beats  chan struct{} // comments
	retry  chan string
}

// listen connects. Headers come in pairs.
func listen(t *testing.T, url string, headers ...string) *listener {
	t.Helper()
	transport := &http.Transport{} // a connection of its own, gone with it
	t.Cleanup(transport.CloseIdleConnections)
	return listenBy(t, transport, url, headers...)
}

func listenBy(t *testing.T, transport http.RoundTripper, url string, headers ...string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{t, res, make(chan sseEvent, 10000), cancel, make(chan struct{}, 10000), make(chan string, 10)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(l.events)
		l.read()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = res.Body.Close()
	})
	return l
}

// read is the parser of the HTML standard.
func (l *listener) read() {
	var e sseEvent
	var data []string
	lines := bufio.NewReader(l.res.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != nil {
				e.data = strings.Join(data, "\n")
				l.events <- e
			}
			e, data = sseEvent{}, nil
		case name == "":
			l.beats <- struct{}{}
		case name == "id":
			e.id = value
		case name == "event":
			e.event = value
		case name == "data":
			data = append(data, value)
		case name == "retry":
			l.retry <- value
		default:
			l.t.Errorf("unknown line %q", line)
		}
	}
}

func (l *listener) next() sseEvent {
	l.t.Helper()
	select {
	case e, ok := <-l.events:
		if !ok {
			l.t.Fatal("the connection ended")
		}
		return e
	case <-time.After(15 * time.Second):
		l.t.Fatal("no event within 15 s")
		return sseEvent{}
	}
}

// want reads one event and checks its name and data.
func (l *listener) want(event, data string) sseEvent {
	l.t.Helper()
	e := l.next()
	if e.event != event || e.data != data {
		l.t.Fatalf("got %+v, want %q %q", e, event, data)
	}
	return e
}

// live waits until what is published comes. A busy machine may be slow to
// subscribe, and that is an error.
func (l *listener) live() sseEvent {
	l.t.Helper()
	e := l.next()
	if e.event == "interrupted" {
		e = l.next()
	}
	if e.event != "subscribed" || e.data != "{}" {
		l.t.Fatalf("got %+v, want subscribed", e)
	}
	return e
}

// ended waits until the server has closed the connection.
func (l *listener) ended() {
	l.t.Helper()
	for end := time.After(15 * time.Second); ; {
		select {
		case _, ok := <-l.events:
			if !ok {
				return
			}
		case <-end:
			l.t.Fatal("the connection does not end")
		}
	}
}

// connect is open, and a busy machine is no failure.
func connect(t *testing.T, redis *madcrowtest.Server) *madcrow.Redis {
	t.Helper()
	cfg := config
	if redis != nil {
		cfg = redis.Config()
	}
	cfg.KeyPrefix, cfg.CommandTimeout = t.Name()+":", 5*time.Second
	return openConfig(t, cfg)
}

func serveSSE[T any](t *testing.T, source sse.Source[T], opt sse.Options[T]) (*httptest.Server, *sse.Handler) {
	t.Helper()
	h, err := sse.New(source, opt)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond // they do not hold
	srv.Config.RegisterOnShutdown(h.Close)
	srv.Start()
	t.Cleanup(func() {
		h.Close()
		srv.Close()
	})
	return srv, h
}

func publish[T any](t *testing.T, topic interface {
	Publish(context.Context, T) (pubsub.Position, error)
}, v T,
) pubsub.Position {
	t.Helper()
	p, err := topic.Publish(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantRefusal(t *testing.T, url string, status int, code string) {
	t.Helper()
	res, err := http.Get(url) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var p problem.Problem
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, json.Unmarshal(body, &p)); err != nil || res.StatusCode != status || p.Code != code || res.Header.Get("Content-Type") != problem.ContentType {
		t.Errorf("%d %s %v, want %d %s", res.StatusCode, body, err, status, code)
	}
}
