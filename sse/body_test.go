package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

// unfinished are requests whose body does not come.
var unfinished = map[string]string{
	"length":   "Content-Length: 1000\r\n\r\n",
	"half":     "Content-Length: 1000\r\n\r\nhalf of it",
	"chunked":  "Transfer-Encoding: chunked\r\n\r\n",
	"chunk":    "Transfer-Encoding: chunked\r\n\r\n400\r\nhalf",
	"expect":   "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
	"large":    "Content-Length: 10000000\r\n\r\n",
	"no chunk": "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
}

// dialSSE sends the head of a request and what stands for its body.
func dialSSE(t *testing.T, srv *httptest.Server, rest string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n"+rest); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return conn, bufio.NewReader(conn)
}

// net/http reads the rest of a body before the header leaves; with the read
// deadline lifted that had no end, and no write time-out, bound or Close held.
// Twelve such clients that read nothing kept 1.3 GB of messages for ever.
func TestSSE_UnfinishedBodyIsRefusedAndDelaysNothing(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	srv, h := serveSSE(t, topic, sse.Options[string]{})
	begin := time.Now()
	answers := map[string]*bufio.Reader{}
	for name, rest := range unfinished {
		_, answers[name] = dialSSE(t, srv, rest)
	}
	for name, answer := range answers {
		want := map[string]string{"no chunk": "HTTP/1.1 400"}[name]
		if want == "" {
			want = "HTTP/1.1 408"
		}
		waitLine(t, answer, want)
		if text, err := io.ReadAll(answer); err != nil || !strings.Contains(string(text), "Connection: close") || !strings.Contains(string(text), `"code":"BODY_`) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	testkit.Eventually(t, "the end of all clients", func() bool { return h.Clients() == 0 })

	_, answer := dialSSE(t, srv, "Content-Length: 300000\r\n\r\n"+strings.Repeat("x", 290_000))
	waitLine(t, answer, "HTTP/1.1 413")
}

func TestSSE_CloseDoesNotWaitForABody(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	srv, h := serveSSE(t, topic, sse.Options[string]{})
	_, answer := dialSSE(t, srv, unfinished["length"])
	testkit.Eventually(t, "the client", func() bool { return h.Clients() == 1 })
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if err := srv.Config.Shutdown(ctx); err != nil || time.Since(begin) > 1500*time.Millisecond {
		t.Errorf("shutdown: %v after %v", err, time.Since(begin))
	}
	waitLine(t, answer, "HTTP/1.1 503")
}

// A whole body, read by someone or by no one, costs the stream nothing.
func TestSSE_AWholeBodyIsNoMatter(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	for name, look := range map[string]func(*http.Request){
		"no one reads it": func(*http.Request) {},
		"it is read":      func(r *http.Request) { _, _ = io.ReadAll(r.Body) },
		"it is closed": func(r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			_ = r.Body.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := sse.NewFunc(func(r *http.Request) (sse.Source[string], error) {
				look(r)
				return topic, nil
			}, sse.Options[string]{})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(h)
			srv.Config.ReadTimeout, srv.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
			srv.Start()
			t.Cleanup(srv.Close)
			t.Cleanup(h.Close)
			_, answer := dialSSE(t, srv, "Content-Length: 5\r\n\r\nhello")
			for want := range strings.SplitSeq("HTTP/1.1 200|event: subscribed", "|") {
				waitLine(t, answer, want)
			}
			time.Sleep(300 * time.Millisecond) // longer than the server's time-outs
			for i := range 3 {
				_, _ = topic.Publish(t.Context(), fmt.Sprint("m", i))
				waitLine(t, answer, fmt.Sprint("data: m", i))
			}
		})
	}
}

func waitLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("no %q: %v", want, err)
		}
		if strings.HasPrefix(line, want) {
			return
		}
	}
}
