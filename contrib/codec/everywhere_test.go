package codec_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/codec"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/session"
	"github.com/madcrow-go/madcrow/stream"
)

// compressed is a codec whose bytes are no text.
func compressed() madcrow.Codec[page] { return codec.Zstd(codec.Msgpack[page]()) }

func TestTopic_CarriesCompressedMessages(t *testing.T) {
	r, want := open(t), onePage(1000)
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close(context.Background())
	topic, err := pubsub.NewTopic(bus, "pages", pubsub.TopicOptions[page]{Codec: compressed()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for e, err := range topic.Subscribe(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != pubsub.EventMessage { // it listens now
			if _, err := topic.Publish(ctx, want); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if e.Err != nil || !e.Message.equal(want) {
			t.Errorf("%+v", e)
		}
		break
	}
}

func TestStream_CarriesCompressedMessages(t *testing.T) {
	want := onePage(1000)
	s, err := stream.New(open(t), "pages", stream.Options[page]{Codec: compressed()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.Publish(ctx, want); err != nil {
		t.Fatal(err)
	}
	got := make(chan page, 1)
	_ = s.Work(ctx, "readers", func(_ context.Context, d stream.Delivery[page]) error {
		got <- d.Message
		cancel()
		return nil
	}, stream.WorkOptions{})
	select {
	case p := <-got:
		if !p.equal(want) {
			t.Errorf("%+v", p)
		}
	default:
		t.Error("no message came")
	}
}

func TestSession_KeepsCompressedData(t *testing.T) {
	r, want := open(t), onePage(1000)
	sessions, err := session.New(r, "pages", session.Options[page]{Codec: compressed()})
	if err != nil {
		t.Fatal(err)
	}
	h := sessions.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := sessions.From(req.Context())
		if req.Method == http.MethodPost {
			if err := s.Update(req.Context(), func(p *page) error { *p = want; return nil }); err != nil {
				t.Error(err)
			}
			return
		}
		p, found, err := s.Get(req.Context())
		_, _ = fmt.Fprint(w, found && err == nil && p.equal(want))
	}))
	server := httptest.NewTLSServer(h)
	defer server.Close()
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	if _, err := client.Post(server.URL, "", nil); err != nil { //nolint:noctx,bodyclose // a test
		t.Fatal(err)
	}
	res, err := client.Get(server.URL) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var same bool
	if _, err := fmt.Fscan(res.Body, &same); err != nil || !same {
		t.Errorf("%v %v", same, err)
	}
}
