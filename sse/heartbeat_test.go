package sse_test

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

func TestSSE_HeartbeatAndHint(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	srv, _ := serveSSE(t, topic, sse.Options[string]{Heartbeat: 20 * time.Millisecond, Retry: 3 * time.Second})
	l := listen(t, srv.URL)
	for range 15 { // also longer than the time-outs of the server
		select {
		case <-l.beats:
		case <-time.After(5 * time.Second):
			t.Fatal("no heartbeat")
		}
	}
	hint := <-l.retry
	if ms, err := time.ParseDuration(hint + "ms"); err != nil || ms < 3*time.Second || ms > 4500*time.Millisecond {
		t.Errorf("retry: %s", hint)
	}
	silent, _ := serveSSE(t, topic, sse.Options[string]{Retry: -1})
	l = listen(t, silent.URL)
	l.live()
	_, _ = topic.Publish(t.Context(), "x")
	l.want("", "x")
	select {
	case <-l.beats:
		t.Error("a heartbeat within 15 s")
	case hint := <-l.retry:
		t.Errorf("retry: %s", hint)
	default:
	}
}

// HTTP/2 resets a stream whose deadline passes while no one writes.
func TestSSE_OverHTTP2ItIsIdleForLongerThanItsTimeouts(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	h, err := sse.New(topic, sse.Options[string]{WriteTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	srv.StartTLS()
	t.Cleanup(srv.Close)
	t.Cleanup(h.Close)
	l := listenBy(t, srv.Client().Transport, srv.URL)
	if l.res.ProtoMajor != 2 {
		t.Fatal(l.res.Proto)
	}
	l.live()
	for i := range 3 {
		time.Sleep(300 * time.Millisecond)
		_, _ = topic.Publish(t.Context(), fmt.Sprint(i))
		l.want("", fmt.Sprint(i))
	}
}
