package sse_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

func TestSSE_ABrowserThatComesBackGetsWhatItMissedOnce(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewRecoverable(b, "news", pubsub.RecoverableOptions[note]{})
	srv, h := serveSSE(t, topic, sse.Options[note]{})

	l := listen(t, srv.URL)
	if got := l.res.Header; l.res.StatusCode != 200 || got.Get("Content-Type") != "text/event-stream" || got.Get("Cache-Control") != "no-store" || got.Get("X-Accel-Buffering") != "no" {
		t.Errorf("%d %v", l.res.StatusCode, got)
	}
	before := l.live() // also who has seen no message comes back to where it was
	if p, err := pubsub.ParsePosition(before.id); err != nil || p == (pubsub.Position{}) {
		t.Errorf("id %q: %v", before.id, err)
	}
	position := publish(t, topic, note{1})
	if e := l.want("", `{"n":1}`); e.id != position.String() {
		t.Errorf("id %q, want %s", e.id, position)
	}
	time.Sleep(300 * time.Millisecond) // longer than the time-outs of the server
	publish(t, topic, note{2})
	l.want("", `{"n":2}`)
	l.leave()
	l.ended()
	for deadline := time.Now().Add(5 * time.Second); h.Clients() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it still counts a client that left")
		}
	}
	publish(t, topic, note{3})

	for name, l := range map[string]*listener{
		"header":                listen(t, srv.URL, "Last-Event-ID", position.String()),
		"parameter":             listen(t, srv.URL+"?last-event-id="+position.String()),
		"header before the URL": listen(t, srv.URL+"?last-event-id="+pubsub.Beginning.String(), "Last-Event-ID", position.String()),
	} {
		t.Log(name)
		l.want("", `{"n":2}`)
		l.want("", `{"n":3}`)
		l.live()
	}
	for _, id := range []string{before.id, pubsub.Beginning.String()} {
		l := listen(t, srv.URL, "Last-Event-ID", id)
		for i := range 3 {
			l.want("", fmt.Sprintf(`{"n":%d}`, i+1))
		}
	}
}

func TestSSE_LostHistoryIsAnEvent(t *testing.T) {
	r := connect(t, nil)
	b := newBus(t, r, pubsub.Options{})
	topic, _ := pubsub.NewRecoverable(b, "news", pubsub.RecoverableOptions[string]{})
	srv, _ := serveSSE(t, topic, sse.Options[string]{})
	publish(t, topic, "one")
	last := publish(t, topic, "two")
	gone := last
	gone.Epoch = "another"
	for _, id := range []string{gone.String(), "17", "nonsense", "a-b-c"} {
		l := listen(t, srv.URL, "Last-Event-ID", id)
		if e := l.want("history-lost", "{}"); e.id != last.String() {
			t.Errorf("%q goes on from %q, want %s", id, e.id, last)
		}
		l.live()
	}
	l := listen(t, srv.URL+"?last-event-id=*-0-%0Aevent:%20forged", "Accept", "*/*")
	l.want("", "one")
}
