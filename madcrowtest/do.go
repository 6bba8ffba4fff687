package madcrowtest

import (
	"bufio"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
)

// clientName marks the connections of this package in CLIENT LIST.
const clientName = "madcrowtest"

// doTimeout bounds one Do.
const doTimeout = 5 * time.Second

// Do sends one command as the default user, over a connection of its own, and
// returns the reply: a string, an int64, nil, a []any of these, or an error
// that Redis returned. The test ends when there is no reply within 5 seconds,
// so Do must be called from the test's own goroutine. It is for setting up and
// looking into the server; it uses nothing of the client under test.
func (s *Server) Do(t testing.TB, args ...string) any {
	t.Helper()
	replies, err := s.exchange(doTimeout, args)
	if err != nil {
		t.Fatalf("madcrowtest: %s: %v", strings.Join(args, " "), err)
	}
	return replies[0]
}

// ConnectedClients returns how many connections the server has, those of this
// package not counted.
func (s *Server) ConnectedClients(t testing.TB) int {
	t.Helper()
	list, ok := s.Do(t, "CLIENT", "LIST").(string)
	if !ok {
		t.Fatal("madcrowtest: CLIENT LIST failed")
	}
	n := 0
	for line := range strings.Lines(list) {
		if !strings.Contains(line, " name="+clientName+" ") {
			n++
		}
	}
	return n
}

// exchange sends the commands in one pipeline and returns their replies.
func (s *Server) exchange(timeout time.Duration, commands ...[]string) ([]any, error) {
	conn, err := s.dial(timeout)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	// Not by HELLO: a test may have taken that command away, or this one.
	before := [][]string{{"CLIENT", "SETNAME", clientName}}
	if s.set.password != "" {
		before = append(before, []string{"AUTH", s.set.password})
		slices.Reverse(before)
	}
	if err := resp.Write(conn, slices.Concat(before, commands)...); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	for i := range before {
		if first, err := resp.Read(r); err != nil {
			return nil, err
		} else if refused, ok := first.(error); ok && i < len(before)-1 {
			return nil, refused // of AUTH; a server that is busy takes no name
		}
	}
	replies := make([]any, len(commands))
	for i := range commands {
		if replies[i], err = resp.Read(r); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

func (s *Server) dial(timeout time.Duration) (net.Conn, error) {
	network, address := "tcp", s.Addr()
	if s.set.socket {
		network, address = "unix", s.socket
	}
	conn, err := net.DialTimeout(network, address, timeout)
	if err != nil || s.tls == nil {
		return conn, err
	}
	return s.tls.client(conn), nil
}
