package madcrowfiber

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"

	"github.com/madcrow-go/madcrow"
	. "github.com/madcrow-go/madcrow/internal/conformance"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/session"
	"github.com/madcrow-go/madcrow/sse"
)

// Behind Fiber's adaptor a client that reads nothing held one of the places of an
// event stream for ever, and a session was not found.
func TestStream_EventsAreCutOffAndEndedAsInNetHTTP(t *testing.T) {
	r, err := madcrow.Open(t.Context(), madcrowtest.StartRedis(t).Config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(context.Background()) }()
	sessions, err := session.New(r, "web", session.Options[Data]{InsecureCookie: true})
	if err != nil {
		t.Fatal(err)
	}
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close(context.Background()) }()
	topic, err := pubsub.NewTopic(bus, "news", pubsub.TopicOptions[string]{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := sse.New(topic, sse.Options[string]{Heartbeat: 50 * time.Millisecond, WriteTimeout: time.Second, Authorize: func(r *http.Request) error {
		if _, err := sessions.From(r.Context()).User(r.Context()); err != nil {
			return err
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	app := fiber.New(fiber.Config{WriteTimeout: 300 * time.Millisecond, ReadTimeout: 300 * time.Millisecond})
	app.Use(Middleware(sessions.Middleware(madcrow.FailClosed)), func(c fiber.Ctx) error { c.Set("X-Before", "1"); return c.Next() })
	app.Get("/events", Stream(events))
	addr := strings.TrimPrefix(serve(t, app), "http://")
	open := func(buffer int) (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetReadBuffer(buffer)
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = conn.Write([]byte("GET /events HTTP/1.1\r\nHost: a\r\n\r\n"))
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != 200 || res.Header.Get("X-Before") != "1" || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%+v %v", res, err)
		}
		return conn, bufio.NewReader(res.Body)
	}
	clients := func(want int, within time.Duration) {
		t.Helper()
		for end := time.Now().Add(within); events.Clients() != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d clients, want %d", events.Clients(), want)
			}
		}
	}
	healthy, lines := open(1 << 20)
	defer func() { _ = healthy.Close() }()
	gone, _ := open(1024)
	clients(2, 3*time.Second)
	_ = gone.Close()
	clients(1, 3*time.Second)
	deaf, _ := open(1024)
	defer func() { _ = deaf.Close() }()
	clients(2, 3*time.Second)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; ; time.Sleep(5 * time.Millisecond) {
			select {
			case <-stop:
				return
			default:
				_, _ = topic.Publish(context.Background(), strings.Repeat("x", 64<<10))
			}
		}
	})
	read := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, lines); read <- err }()
	clients(1, 15*time.Second) // the deaf one is cut off, the healthy one goes on
	close(stop)
	wg.Wait()
	time.Sleep(400 * time.Millisecond) // longer than Fiber's time-outs
	clients(1, 0)
	events.Close()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the stream goes on after Close")
	}
}
