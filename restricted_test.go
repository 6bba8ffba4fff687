package madcrow_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/resp"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// lines keeps what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// answering is a Dialer to a server, before which answer may answer a command
// itself: it plays servers that cannot be had.
func answering(s *madcrowtest.Server, answer func(op string) (reply string)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		server, err := (&net.Dialer{}).DialContext(ctx, network, s.Addr())
		if err != nil {
			return nil, err
		}
		ours, theirs := net.Pipe()
		go func() {
			defer server.Close()
			defer theirs.Close()
			from, back := bufio.NewReader(theirs), bufio.NewReader(server)
			for {
				command, err := resp.Read(from)
				if err != nil {
					return
				}
				args := make([]string, len(command.([]any)))
				for i, a := range command.([]any) {
					args[i], _ = a.(string)
				}
				if reply := answer(strings.ToUpper(args[0])); reply != "" {
					_, err = io.WriteString(theirs, reply)
				} else if err = resp.Write(server, args); err == nil {
					err = copyReply(theirs, back)
				}
				if err != nil {
					return
				}
			}
		}()
		return ours, nil
	}
}

// copyReply passes one reply on, of version 2 or 3.
func copyReply(to io.Writer, from *bufio.Reader) error {
	for more := 1; more > 0; more-- {
		line, err := from.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := io.WriteString(to, line); err != nil {
			return err
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
		switch {
		case line[0] == '*' || line[0] == '~' || line[0] == '>':
			more += max(n, 0)
		case line[0] == '%':
			more += 2 * n
		case (line[0] == '$' || line[0] == '=') && n >= 0:
			if _, err := io.CopyN(to, from, int64(n)+2); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestQuota_UsedUp is 503 with Retry-After, not applied, and seen in the state;
// it was a 500 of a server that was up, and unknown for a script.
func TestQuota_UsedUp(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	var empty atomic.Bool
	var log lines
	r := open(t, madcrow.Config{Host: "redis.internal", Logger: slog.New(slog.NewTextHandler(&log, nil)), Dialer: answering(s, func(op string) string {
		if empty.Load() && op != "HELLO" && op != "PING" && op != "AUTH" && op != "CLIENT" {
			return "-ERR max requests limit exceeded. Limit: 500000, Usage: 500000. See https://example.com for details\r\n"
		}
		return ""
	})})
	await(t, r, madcrow.StateUp, 5*time.Second)
	empty.Store(true)
	for name, call := range map[string]func() error{
		"read":   func() error { err := r.Do(t.Context(), get(r, "a")).Err(); return err },
		"write":  func() error { err := r.Do(t.Context(), set(r, "a", "1")).Err(); return err },
		"script": func() error { err := r.Eval(t.Context(), scriptWrite, []string{"a"}, []string{"1"}).Err(); return err },
		"transaction": func() error {
			_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "a")); return nil })
			return err
		},
		"tracked": func() error { return r.GetTracked(t.Context(), []string{"a"})[0].Err },
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			err := call()
			wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "max requests limit exceeded")
			if !errors.Is(err, madcrow.ErrQuota) {
				t.Errorf("%v is not ErrQuota", err)
			}
			if d := time.Since(start); d > testkit.Slack(100*time.Millisecond) {
				t.Errorf("took %v: it will not be filled up in that time", d)
			}
			if p := problem.From(err); p.Status != http.StatusServiceUnavailable || p.RetryAfter <= 0 {
				t.Errorf("answered with %+v", p)
			}
		})
	}
	if st := r.Status(); st.State != madcrow.StateDegraded || !errors.Is(st.Err, madcrow.ErrQuota) || !r.Available() {
		t.Errorf("state %v, %v, available %v", st.State, st.Err, r.Available())
	}
	if n := log.count("its quota is used up"); n != 1 {
		t.Errorf("said %d times", n)
	}
	empty.Store(false)
	await(t, r, madcrow.StateUp, 15*time.Second)
	if n := log.count("its quota is filled up"); n != 1 {
		t.Errorf("its end was said %d times", n)
	}
}

// TestScripts_ServerThatRunsNone: nothing can have been applied, the fact is
// named once in the log, and the state shows it: a limit that fails open would
// be open for ever, unseen.
func TestScripts_ServerThatRunsNone(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []madcrowtest.Option
		fake string
		kind madcrow.Kind
		is   error
	}{
		{"renamed away", []madcrowtest.Option{madcrowtest.WithArgs("--rename-command", "EVAL", "", "--rename-command", "EVALSHA", "")}, "", madcrow.KindServer, madcrow.ErrServer},
		{"denied", []madcrowtest.Option{madcrowtest.WithUser("app", "pw", "~*", "+@all", "-@scripting")}, "", madcrow.KindPermission, madcrow.ErrPermission},
		{"switched off", nil, "-ERR This instance has Lua scripting support disabled\r\n", madcrow.KindServer, madcrow.ErrServer},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := madcrowtest.StartRedis(t, c.opts...)
			cfg := s.Config()
			var log lines
			var off atomic.Bool
			off.Store(true)
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			if c.fake != "" {
				cfg.Dialer = answering(s, func(op string) string {
					if off.Load() && (op == "EVAL" || op == "EVALSHA") {
						return c.fake
					}
					return ""
				})
			}
			r := open(t, cfg)
			first := madcrow.StateDegraded // it is seen when the connection is made
			if c.name == "denied" {
				first = madcrow.StateUp // this user may need none
			}
			await(t, r, first, 5*time.Second)
			limit, err := ratelimit.New(r, "l", ratelimit.Options{Rate: ratelimit.PerMinute(1), FailPolicy: madcrow.FailOpen})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if d, err := limit.Allow(t.Context(), "s"); err != nil || !d.Degraded {
					t.Errorf("the limit decided %+v, %v", d, err)
				}
				err := r.Eval(t.Context(), scriptWrite, []string{"secret-key"}, []string{"1"}).Err()
				wantError(t, err, c.kind, c.is, madcrow.OutcomeNotApplied, "scripts")
				if !errors.Is(err, madcrow.ErrNoScripts) || strings.Contains(err.Error(), "secret-key") {
					t.Errorf("%v", err)
				}
			}
			if n := log.count("redis refuses scripts"); n != 1 {
				t.Errorf("said %d times", n)
			}
			if st := r.Status(); st.State != madcrow.StateDegraded || !errors.Is(st.Err, madcrow.ErrNoScripts) {
				t.Errorf("state %v, %v", st.State, st.Err)
			}
			mustSet(t, r, "a", "1") // all else works
			if c.name == "denied" {
				s.Do(t, "ACL", "SETUSER", "app", "+@scripting")
			}
			off.Store(false)
			if c.name != "renamed away" {
				await(t, r, madcrow.StateUp, 5*time.Second)
				if d, err := limit.Allow(t.Context(), "s"); err != nil || d.Degraded {
					t.Errorf("the limit decided %+v, %v", d, err)
				}
			}
		})
	}
}

// Another server's word for loading is waited out in a script as well.
func TestEval_WaitsWhileAnotherServerIsLoading(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	var loading atomic.Bool
	r := open(t, madcrow.Config{Host: "redis.internal", Dialer: answering(s, func(op string) string {
		if loading.Load() && op != "HELLO" && op != "CLIENT" && op != "PING" {
			return "-LOADING Dragonfly is loading the dataset in memory\r\n"
		}
		return ""
	})})
	await(t, r, madcrow.StateUp, 5*time.Second)
	loading.Store(true)
	err := r.Eval(t.Context(), scriptWrite, []string{"a"}, []string{"1"}).Err()
	wantError(t, err, madcrow.KindLoading, madcrow.ErrLoading, madcrow.OutcomeNotApplied)
	time.AfterFunc(100*time.Millisecond, func() { loading.Store(false) })
	if err := r.Eval(t.Context(), scriptWrite, []string{"a"}, []string{"1"}).Err(); err != nil {
		t.Errorf("loading of 100 ms was not waited out: %v", err)
	}
}
