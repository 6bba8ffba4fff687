package cli

import (
	"errors"
	"net"
	"testing"
	"time"
)

// Connections that were made and not yet accepted were cut off when the server
// began to end: under load some clients got no answer.
func TestLastCall_HandsOutWhoIsConnectedAlready(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lastCall{Listener: ln}
	const clients = 5
	for range clients {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for {
		c, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			break
		}
		_ = c.Close()
		accepted++
	}
	if accepted != clients {
		t.Errorf("%d of %d were accepted", accepted, clients)
	}
	if c, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second); err == nil {
		_ = c.Close()
		t.Error("it is still open")
	}
}
