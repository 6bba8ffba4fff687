package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// trap is a message whose decoding does what it says.
type trap struct{ what string }

func (m *trap) UnmarshalJSON(data []byte) error {
	switch m.what = strings.Trim(string(data), `"`); m.what {
	case "decode panics":
		panic("no such shape")
	case "decode exits":
		runtime.Goexit()
	}
	return nil
}

func (m trap) MarshalJSON() ([]byte, error) { return []byte(`"` + m.what + `"`), nil }

// oldSharded lets a server not know sharded channels, as before Redis 7.
type oldSharded struct{ net.Conn }

func (c oldSharded) Write(p []byte) (int, error) {
	q := bytes.ReplaceAll(p, []byte("\r\nSSUBSCRIBE\r\n"), []byte("\r\nNOSUBSCRIB\r\n"))
	q = bytes.ReplaceAll(q, []byte("\r\nSPUBLISH\r\n"), []byte("\r\nNOSHARDS\r\n"))
	return c.Conn.Write(q)
}

// A subscription to a sharded channel on a server without them was tried again
// for ever, in silence.
func TestTopic_ServerWithoutShardedChannelsIsRefusedByName(t *testing.T) {
	cfg := madcrowtest.StartRedis(t).Config()
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return oldSharded{c}, err
	}
	topic := topicOf(t, newBus(t, openConfig(t, cfg), pubsub.Options{}), "c", pubsub.TopicOptions[int]{Sharded: true})
	if _, err := topic.Publish(t.Context(), 1); !errors.Is(err, pubsub.ErrTooOld) {
		t.Errorf("publish: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var last error
	for _, err := range topic.Subscribe(ctx) {
		last = err
	}
	if !errors.Is(last, pubsub.ErrTooOld) || !strings.Contains(last.Error(), "sharded channels need Redis 7.0") {
		t.Errorf("subscribe: %v", last)
	}
}

// A subscriber whose decoding panics is notified that the message is malformed, and
// goes on.
func TestTopic_DecodingThatPanicsIsAMalformedMessage(t *testing.T) {
	topic := topicOf(t, newBus(t, open(t), pubsub.Options{}), "c", pubsub.TopicOptions[trap]{})
	l := hearing(t, subscribeTo(topic))
	l.next(t, "subscribed", is[trap](pubsub.EventSubscribed))
	for _, what := range []string{"decode panics", "fine"} {
		if _, err := topic.Publish(t.Context(), trap{what}); err != nil {
			t.Fatal(err)
		}
	}
	if e := l.next(t, "the malformed one", is[trap](pubsub.EventMessage)); !errors.Is(e.Err, pubsub.ErrMalformed) {
		t.Errorf("%+v", e)
	}
	if e := l.next(t, "the one after it", is[trap](pubsub.EventMessage)); e.Err != nil || e.Message.what != "fine" {
		t.Errorf("%+v", e)
	}
}
