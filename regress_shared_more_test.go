package madcrow_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// A connection that ends during a transaction takes its WATCH along: EXEC must
// not run on another one.
func TestTx_ItsConnectionIsNotMadeAnew(t *testing.T) {
	s, r := server(t)
	s.Do(t, "SET", "n", "1")
	calls := 0
	_, err := r.Tx(t.Context(), []string{"n"}, func(tx *madcrow.Tx) error {
		calls++
		msg, err := tx.Do(get("n"))
		if err != nil {
			return err
		}
		n, _ := msg.AsInt64()
		if calls == 1 {
			id, err := tx.Do(func(b builder) command { return b.ClientId().Build() })
			if err != nil {
				return err
			}
			v, _ := id.AsInt64()
			s.Do(t, "CLIENT", "KILL", "ID", fmt.Sprint(v))
			time.Sleep(50 * time.Millisecond)
			s.Do(t, "SET", "n", "100") // somebody else
		}
		tx.Queue(set("n", fmt.Sprint(n+1)))
		return nil
	})
	var e *madcrow.Error
	switch v := s.Do(t, "GET", "n"); {
	case err == nil && v == "101" && calls > 1:
	case errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied && v == "100":
	default:
		t.Errorf("%d calls, %v, n is %v", calls, err, v)
	}
}

// A master that lacks replicas is the master: nobody's connection ends.
func TestReplies_NoReplicasEndsNoConnection(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	sub := receiveOn(t, r, "c")
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := r.Do(t.Context(), set("a", "1")); !errors.Is(err, madcrow.ErrReadOnly) {
			t.Fatal(err)
		}
	}
	select {
	case err := <-sub.ended:
		t.Errorf("a subscription ended: %v", err)
	default:
	}
	sub.cancel()
	<-sub.ended
}

// That a write may run twice does not say that it did not.
func TestOutcome_OfAWriteThatMayRunTwice(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CLIENT", "PAUSE", "900", "ALL")
	write := func(b builder) command { return b.Set().Key("k").Value("1").Build().ToRetryable() }
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := r.Do(ctx, write)
	wantError(t, err, madcrow.KindTimeout, madcrow.ErrTimeout, madcrow.OutcomeUnknown)
	_, err = r.DoMulti(ctx, func(b builder) []command { return []command{write(b), b.Get().Key("k").Build()} })
	if err == nil {
		t.Error("in time")
	}
}

// However it is spelt, a command that changes the connection is refused.
func TestShared_CommandsInAnyCase(t *testing.T) {
	s, r := server(t)
	s.Do(t, "SET", "k", "v")
	for _, words := range [][]string{{"Select", "1"}, {"sElect", "1"}, {"Multi"}, {"Watch", "k"}, {"Auth", "x"}, {"MoniTor"}} {
		build := func(b builder) command { return b.Arbitrary(words...).Build() }
		if _, err := r.Do(t.Context(), build); err == nil {
			t.Errorf("%v was sent", words)
		}
		if stream := r.Client().DoStream(t.Context(), build(r.Client().B())); stream.Error() == nil {
			t.Errorf("%v was sent, as a stream", words)
		}
	}
	if msg, err := r.Do(t.Context(), get("k")); err != nil {
		t.Error(err)
	} else if v, err := msg.ToString(); err != nil || v != "v" {
		t.Errorf("%q %v", v, err)
	}
	large := strings.Repeat("x", r.Config().MaxValueSize+1)
	if stream := r.Client().DoStream(t.Context(), r.Client().B().Set().Key("k").Value(large).Build()); !errors.Is(stream.Error(), madcrow.ErrTooLarge) {
		t.Errorf("too large: %v", stream.Error())
	}
}

// A server that does not know AUTH repeats its arguments.
func TestSecrets_AServerThatDoesNotKnowAuth(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); ; {
					v, err := resp.Read(r)
					words, _ := v.([]any)
					if err != nil || len(words) == 0 {
						return
					}
					_, _ = fmt.Fprintf(c, "-ERR unknown command '%v', with args beginning with: %q\r\n", words[0], words[1:])
				}
			}()
		}
	}()
	cfg := madcrow.Config{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
	var mu sync.Mutex
	var log bytes.Buffer
	cfg.Username, cfg.Password, cfg.Require = "user", "hunter2secret", true
	cfg.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = madcrow.Open(ctx, cfg)
	if err == nil || !strings.Contains(err.Error(), "unknown command") {
		t.Fatalf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if text := err.Error() + log.String(); strings.Contains(text, "hunter2") {
		t.Errorf("%s", text)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
