package madcrow_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// pushlessConn loses what the server pushes about changed keys, as a proxy does that
// knows replies alone.
type pushlessConn struct{ net.Conn }

func (c pushlessConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	head := []byte(">2\r\n$10\r\ninvalidate\r\n*1\r\n$")
	for at := bytes.Index(p[:n], head); at >= 0; at = bytes.Index(p[:n], head) {
		end := at + len(head)
		for range 2 { // the length, the key
			end += bytes.Index(p[end:n], []byte("\r\n")) + 2
		}
		n -= len(p[at:end])
		copy(p[at:], p[end:n+end-at])
	}
	if n == 0 && err == nil {
		return c.Read(p)
	}
	return n, err
}

// CLIENT TRACKING was accepted, nothing was ever pushed, and copies were
// believed for as long as the entry lived.
func TestGetTracked_IsNotBelievedWherePushesDoNotArrive(t *testing.T) {
	deaf := func(cfg *madcrow.Config) {
		cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return pushlessConn{c}, nil
		}
	}
	for name, c := range map[string]struct {
		args []string
		cfg  func(*madcrow.Config)
	}{
		"RESP2 alone":             {args: []string{"--rename-command", "HELLO", ""}},
		"a proxy that drops them": {cfg: deaf},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := madcrowtest.StartRedis(t, madcrowtest.WithArgs(c.args...))
			cfg := s.Config()
			log := &testkit.Log{}
			cfg.Logger = log.Logger()
			if c.cfg != nil {
				c.cfg(&cfg)
			}
			r := open(t, cfg)
			await(t, r, madcrow.StateUp, 5*time.Second)
			mustSet(t, r, "a", "1")
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if got := tracked(t, r, "a"); valueOf(got) != "1" || got.Tracking != nil {
					t.Fatalf("%q is believed: %+v", valueOf(got), got.Tracking)
				}
			}
			testkit.Eventually(t, "one line says so", func() bool { return len(log.With("does not tell of changes")) == 1 })
			s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if got := r.GetTracked(t.Context(), []string{"a"})[0]; got.Tracking != nil {
					t.Fatal("believed on the next connection")
				}
			}
			if n := len(log.With("does not tell of changes")); n != 1 {
				t.Errorf("said %d times", n)
			}
		})
	}
}

// A user who may not write the key of the proof: the first change that is pushed
// of is the proof.
func TestGetTracked_IsBelievedAfterTheFirstPush(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-set"))
	cfg := s.Config()
	log := &testkit.Log{}
	cfg.Logger = log.Logger()
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	if got := tracked(t, r, "a"); got.Tracking != nil {
		t.Fatal("believed without a proof")
	}
	testkit.Eventually(t, "one line says why", func() bool { return len(log.With("cannot be tried")) == 1 && len(log.With("m1:tracking:")) == 1 })
	tracked(t, r, "a")
	s.Do(t, "SET", "a", "1")
	testkit.Eventually(t, "the push is the proof", func() bool { return tracked(t, r, "a").Tracking.Valid() })
	testkit.Eventually(t, "one line says that it is over", func() bool { return len(log.With("redis tells of changes")) == 1 })
}

// The proof is made once a connection, and its own connection is closed again.
func TestGetTracked_ProvesAConnectionOnce(t *testing.T) {
	s, r := server(t)
	believed(t, r)
	for range 50 {
		if !tracked(t, r, "a").Tracking.Valid() {
			t.Fatal("not believed")
		}
	}
	s.Do(t, "FLUSHALL") // ends the tracking, not the proof
	testkit.Eventually(t, "tracked again", func() bool { return tracked(t, r, "a").Tracking.Valid() })
	text, _ := s.Do(t, "INFO", "commandstats").(string)
	if n := strings.Count(text, "cmdstat_set:calls=1,"); n != 1 {
		t.Errorf("more or fewer proofs than one:\n%s", text)
	}
	testkit.Eventually(t, "the connection of the proof is closed", func() bool {
		list, _ := s.Do(t, "CLIENT", "LIST").(string)
		return strings.Count(list, "\n") <= 2 // ours, and the one that asks
	})
}
