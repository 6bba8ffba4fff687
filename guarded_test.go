package madcrow_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// hostile is everything of a user's that the core calls, each of it as bad as
// can be while it is on.
type hostile struct {
	slog.Handler
	on    atomic.Int32 // 1: it panics, 2: it ends the goroutine
	calls atomic.Int32
}

func (h *hostile) act() {
	switch h.calls.Add(1); h.on.Load() {
	case 1:
		panic("hostile")
	case 2:
		runtime.Goexit()
	}
}

func (h *hostile) mayPanic() {
	if h.calls.Add(1); h.on.Load() == 1 {
		panic("hostile")
	}
}

func (h *hostile) Handle(context.Context, slog.Record) error    { h.act(); return nil }
func (h *hostile) Enabled(context.Context, slog.Level) bool     { return true }
func (h *hostile) Dial(context.Context, madcrow.Dial)           { h.act() }
func (h *hostile) StateChange(madcrow.State, madcrow.State)     { h.act() }
func (h *hostile) Operation(context.Context, madcrow.Operation) { h.mayPanic() }
func (h *hostile) Event(context.Context, madcrow.Event)         { h.mayPanic() }
func (h *hostile) dial(ctx context.Context, n, a string) (net.Conn, error) {
	h.act()
	return (&net.Dialer{}).DialContext(ctx, n, a)
}

func (h *hostile) credentials(context.Context, madcrow.CredentialsRequest) (madcrow.Credentials, error) {
	h.act()
	return madcrow.Credentials{}, nil
}

// The functions of the configuration run in goroutines of the core: what they
// do ended the process, or left no one to connect.
func TestOpen_FunctionsThatPanicOrExitEndNothing(t *testing.T) {
	for name, mode := range map[string]int32{"panic": 1, "exit": 2} {
		t.Run(name, func(t *testing.T) {
			srv := madcrowtest.StartRedis(t)
			h := &hostile{}
			h.on.Store(mode)
			cfg := srv.Config()
			cfg.Logger, cfg.Recorder, cfg.Dialer, cfg.Credentials = slog.New(h), h, h.dial, h.credentials
			r, err := madcrow.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close(t.Context())
			for end := time.Now().Add(5 * time.Second); h.calls.Load() < 10 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if st := r.Status(); st.Err != nil && mode == 1 && !strings.Contains(st.Err.Error(), "panic: hostile") {
				t.Errorf("the reason is %v", st.Err)
			}
			h.on.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for {
				if err = r.Do(ctx, r.B().Ping().Build()).Err(); err == nil || ctx.Err() != nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Fatalf("it never connected: %v", err)
			}
			h.on.Store(mode)
			if err := r.Do(ctx, r.B().Ping().Build()).Err(); err != nil {
				t.Errorf("a call whose recorder fails: %v", err)
			}
		})
	}
}

// Of those who receive a channel, one that panics ends itself alone; one that
// ends its goroutine leaves the others able to subscribe again.
func TestSubscribe_FunctionThatPanicsEndsItselfAlone(t *testing.T) {
	_, r := server(t)
	of := madcrow.Subscription{Channels: []string{"c"}}
	var ready sync.WaitGroup
	ready.Add(3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	handler := func(what string, onMessage func(madcrow.PubSubMessage)) madcrow.Handler {
		once := sync.OnceFunc(ready.Done)
		return madcrow.Handler{OnMessage: onMessage, OnSubscribed: func(string) {
			once()
			if what == "hook" {
				panic("the hook")
			}
		}}
	}
	panics, hook := make(chan error, 1), make(chan error, 1)
	go func() {
		panics <- r.Subscribe(ctx, of, handler("panic", func(madcrow.PubSubMessage) { panic("hostile") }))
	}()
	go func() { hook <- r.Subscribe(ctx, of, handler("hook", drop)) }()
	heard := make(chan string, 10)
	go func() {
		h := handler("", func(m madcrow.PubSubMessage) { heard <- m.Payload })
		for ctx.Err() == nil {
			_ = r.Subscribe(ctx, of, h)
		}
	}()
	ready.Wait()
	say := func(text string) {
		t.Helper()
		if err := r.Do(ctx, r.B().Publish().Channel("c").Message(text).Build()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	say("1")
	for name, ended := range map[string]chan error{"hostile": panics, "the hook": hook} {
		select {
		case err := <-ended:
			if e := (*madcrow.Error)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), "panic: "+name) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s goes on", name)
		}
	}
	if got := <-heard; got != "1" {
		t.Error(got)
	}
	go func() {
		_ = r.Subscribe(ctx, of, madcrow.Handler{OnMessage: func(madcrow.PubSubMessage) { runtime.Goexit() }})
	}()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		say("2")
		say("3") // after the goroutine has ended, if it has
		select {
		case got := <-heard:
			if got == "3" {
				return
			}
		default:
		}
		if time.Now().After(end) {
			t.Fatal("the others hear no more")
		}
	}
}
