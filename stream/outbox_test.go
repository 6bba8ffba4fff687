package stream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

func TestOutbox_MessagesWaitForRedisInOrder(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	r := openConfig(t, cfg)
	s, err := stream.New(r, "s", stream.Options[int]{Outbox: 30, KeepDone: true})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := s.Publish(t.Context(), 0); err != nil || id == "" {
		t.Fatal(id, err)
	}
	proxy.Refuse(true)
	proxy.ResetAll()
	testkit.Eventually(t, "Redis is away", func() bool { return r.Err() != nil })
	for n := range 30 {
		id, err := s.Publish(t.Context(), n+1)
		var e *madcrow.Error
		if !errors.Is(err, stream.ErrQueued) || id != "" || !errors.As(err, &e) || e.Retryable() || e.NotSent() {
			t.Fatalf("%d: %q %v", n, id, err)
		}
	}
	if _, err := s.Publish(t.Context(), 99); !errors.Is(err, stream.ErrOutboxFull) {
		t.Error(err)
	}
	if _, err := s.PublishIn(t.Context(), time.Hour, 99); !errors.Is(err, madcrow.ErrUnavailable) {
		t.Error(err)
	}
	proxy.Refuse(false)
	testkit.Eventually(t, "all are there", func() bool { return srv.Do(t, "XLEN", shopLog) == int64(31) })
	direct, err := stream.New(openConfig(t, srv.Config()), "s", stream.Options[int]{KeepDone: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 100)
	working(t, direct, func(_ context.Context, d stream.Delivery[int]) error {
		got <- d.Message
		return nil
	}, stream.WorkOptions{Workers: 1})
	for want := range 31 {
		if n := <-got; n != want {
			t.Fatalf("%d, want %d", n, want)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Publish(t.Context(), 1); !errors.Is(err, stream.ErrClosed) {
		t.Error(err)
	}
}

func TestOutbox_CloseSaysWhatIsLost(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	s, err := stream.New(r, "s", stream.Options[int]{Outbox: 30})
	if err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { return r.Err() != nil })
	for n := range 3 {
		if _, err := s.Publish(t.Context(), n); !errors.Is(err, stream.ErrQueued) {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); !errors.Is(err, stream.ErrClosed) || !strings.Contains(err.Error(), "3 messages were not sent") {
		t.Error(err)
	}
}

func TestNew_NamesAllThatIsWrong(t *testing.T) {
	_, err := stream.New(open(t), "", stream.Options[int]{MaxLen: -1, MaxDead: -1, MaxDelayed: -1, Outbox: -1, OutboxBytes: -1})
	for _, want := range []string{"name", "MaxLen", "MaxDead", "MaxDelayed", "Outbox", "OutboxBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// A second Close waited for messages that the first one had given up.
func TestOutbox_SecondCloseDoesNotWait(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	r := openConfig(t, cfg)
	s, err := stream.New(r, "s", stream.Options[int]{Outbox: 30})
	if err != nil {
		t.Fatal(err)
	}
	proxy.Refuse(true)
	proxy.ResetAll()
	testkit.Eventually(t, "Redis is away", func() bool { return r.Err() != nil })
	if _, err := s.Publish(t.Context(), 1); !errors.Is(err, stream.ErrQueued) {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); !errors.Is(err, stream.ErrClosed) {
		t.Error(err)
	}
	proxy.Refuse(false)
	testkit.Eventually(t, "Redis is back", func() bool { return r.Err() == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_ = s.Close(ctx)
	if ctx.Err() != nil {
		t.Error("the second Close waited")
	}
}

// A Redis that came back full had the outbox thrown away.
func TestOutbox_MessagesWaitWhileRedisIsFull(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	r := openConfig(t, cfg)
	var log testkit.Log
	s, err := stream.New(r, "s", stream.Options[int]{Outbox: 30, Logger: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	proxy.Refuse(true)
	proxy.ResetAll()
	testkit.Eventually(t, "Redis is away", func() bool { return r.Err() != nil })
	for n := range 5 {
		if _, err := s.Publish(t.Context(), n); !errors.Is(err, stream.ErrQueued) {
			t.Fatal(err)
		}
	}
	srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	proxy.Refuse(false)
	testkit.Eventually(t, "it is said", func() bool { return len(log.With("the outbox")) > 0 })
	time.Sleep(100 * time.Millisecond)
	srv.Do(t, "CONFIG", "SET", "maxmemory", "0")
	testkit.Eventually(t, "all are there", func() bool { return srv.Do(t, "XLEN", shopLog) == int64(5) })
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
