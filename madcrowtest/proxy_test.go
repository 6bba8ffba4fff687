//go:build unix

package madcrowtest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

func TestProxy_PassesEverythingOn(t *testing.T) {
	CheckLeaks(t)
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	value := strings.Repeat("x", 1<<20)
	s.Do(t, "SET", "big", value)
	conn := dialPlain(t, p.Addr())
	if got := roundTrip(t, conn, "PING"); got != "+PONG\r\n" {
		t.Fatalf("PING = %q", got)
	}
	if p.Conns() != 1 {
		t.Errorf("Conns = %d, want 1", p.Conns())
	}
	if got, err := getBig(conn); err != nil || got != value {
		t.Errorf("a value of 1 MiB came as %d bytes, %v", len(got), err)
	}
	_ = conn.Close()
	testkit.Eventually(t, "the connection to be gone", func() bool { return p.Conns() == 0 })
	testkit.Eventually(t, "the server to see it go", func() bool { return s.ConnectedClients(t) == 0 })
}

func TestProxy_SetDelayLengthensEachRoundTrip(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	conn := dialPlain(t, p.Addr())
	const delay = 80 * time.Millisecond
	p.SetDelay(delay)
	start := time.Now()
	if got := roundTrip(t, conn, "PING"); got != "+PONG\r\n" {
		t.Fatalf("PING = %q", got)
	}
	if took := time.Since(start); took < delay {
		t.Errorf("the reply came after %v, want at least %v", took, delay)
	}
	p.SetDelay(0)
	// Not a time to assert; without the delay a hundred trips fit easily.
	start = time.Now()
	for range 100 {
		roundTrip(t, conn, "PING")
	}
	if took := time.Since(start); took > 100*delay/2 {
		t.Errorf("100 trips took %v after the delay ended", took)
	}
}

func TestProxy_BlackHoleSwallows(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	old := dialPlain(t, p.Addr())
	roundTrip(t, old, "PING")
	p.BlackHole(true)
	fresh := dialPlain(t, p.Addr()) // accepted
	for name, conn := range map[string]net.Conn{"old": old, "new": fresh} {
		_, _ = io.WriteString(conn, "SET swallowed "+name+"\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		var timeout net.Error
		if n, err := conn.Read(make([]byte, 10)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("the %s connection got %d bytes, %v", name, n, err)
		}
	}
	if got := s.Do(t, "GET", "swallowed"); got != nil {
		t.Errorf("a request on the %v connection reached the server", got)
	}
	if n := s.ConnectedClients(t); n != 1 {
		t.Errorf("the server has %d connections, want the old one only", n)
	}
	p.BlackHole(false)
	for name, conn := range map[string]net.Conn{"old": old, "new": fresh} {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 10)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the %s connection was not closed: %v", name, err)
		}
	}
	if got := roundTrip(t, dialPlain(t, p.Addr()), "PING"); got != "+PONG\r\n" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestProxy_BlackHoleSwallowsRepliesUnderWay(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	conn := dialPlain(t, p.Addr())
	roundTrip(t, conn, "PING")
	p.SetDelay(100 * time.Millisecond)
	_, _ = io.WriteString(conn, "SET sent 1\r\n")
	testkit.Eventually(t, "the request to arrive", func() bool { return s.Do(t, "GET", "sent") == "1" })
	p.BlackHole(true)
	_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 10)); n > 0 {
		t.Errorf("%d bytes of the reply came out, %v", n, err)
	}
}

func TestProxy_CutAfterEndsInTheMiddleOfAReply(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	s.Do(t, "SET", "big", strings.Repeat("x", 1<<20))
	conn := dialPlain(t, p.Addr())
	roundTrip(t, conn, "PING")
	p.CutAfter(100_000)
	_, _ = io.WriteString(conn, "GET big\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, err := io.ReadAll(conn)
	if len(got) != 100_000 || err != nil {
		t.Errorf("%d bytes passed, %v; want 100000 and the end", len(got), err)
	}
	p.CutAfter(-1)
	if got, err := getBig(dialPlain(t, p.Addr())); err != nil || len(got) != 1<<20 {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

func TestProxy_ResetAllResets(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	conn := dialPlain(t, p.Addr())
	roundTrip(t, conn, "PING")
	p.ResetAll()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	if p.Conns() != 0 {
		t.Errorf("Conns = %d", p.Conns())
	}
	if got := roundTrip(t, dialPlain(t, p.Addr()), "PING"); got != "+PONG\r\n" {
		t.Errorf("a new connection: %q", got)
	}
}

func TestProxy_RefuseTurnsNewConnectionsAway(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	old := dialPlain(t, p.Addr())
	roundTrip(t, old, "PING")
	p.Refuse(true)
	if got := roundTrip(t, dialPlain(t, p.Addr()), "PING"); got != "" {
		t.Errorf("a new connection: %q", got)
	}
	if got := roundTrip(t, old, "PING"); got != "+PONG\r\n" {
		t.Errorf("an open connection: %q", got)
	}
	p.Refuse(false)
	if got := roundTrip(t, dialPlain(t, p.Addr()), "PING"); got != "+PONG\r\n" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestProxy_ClosesAConnectionWhoseServerIsAway(t *testing.T) {
	s := StartRedis(t)
	p := StartProxy(t, s.Addr())
	old := dialPlain(t, p.Addr())
	roundTrip(t, old, "PING")
	s.Kill()
	for name, conn := range map[string]net.Conn{"old": old, "new": dialPlain(t, p.Addr())} {
		if got := roundTrip(t, conn, "PING"); got != "" {
			t.Errorf("the %s connection: %q", name, got)
		}
	}
}

func TestProxy_EndsWithTheTest(t *testing.T) {
	CheckLeaks(t)
	s := StartRedis(t)
	var p *Proxy
	t.Run("inner", func(t *testing.T) {
		p = StartProxy(t, s.Addr())
		p.SetDelay(time.Hour) // pieces that are held back end, too
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "PING\r\n")
		testkit.Eventually(t, "the proxy to connect", func() bool { return s.ConnectedClients(t) == 1 })
		p.BlackHole(true)
		dialPlain(t, p.Addr())
	})
	if p.Conns() != 0 {
		t.Errorf("Conns = %d", p.Conns())
	}
	if conn, err := net.Dial("tcp", p.Addr()); err == nil {
		_ = conn.Close()
		t.Error("the proxy still listens")
	}
}

func getBig(conn net.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "GET big\r\n"); err != nil {
		return "", err
	}
	reply, err := resp.Read(bufio.NewReader(conn))
	text, _ := reply.(string)
	return text, err
}
