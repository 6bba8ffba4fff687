package madcrowtest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreePort returns a TCP port of 127.0.0.1 on which nobody listens now, for a
// server that shall appear there later. It lies below the range from which
// systems choose the ports of outgoing connections: a client that keeps
// dialling an absent server on a port of that range sooner or later connects
// to itself.
func FreePort(t testing.TB) int {
	t.Helper()
	const lowest, highest = 20000, 32700
	for range 200 {
		if port := lowest + rand.IntN(highest-lowest); isFree(port) {
			return port
		}
	}
	t.Fatal("madcrowtest: no free port between 20000 and 32700")
	return 0
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
