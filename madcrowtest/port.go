package madcrowtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreePort returns a TCP port of 127.0.0.1 on which no program listens now, for a
// server that shall appear there later. It lies below the range from which
// systems choose the ports of outgoing connections: a client that keeps
// dialling an absent server on a port of that range sooner or later connects
// to itself.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freePort(0)
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	return port
}

const (
	lowestPort, highestPort = 20000, 32700
	// busOffset is how far above its port the other nodes of a cluster reach
	// a node.
	busOffset = 10000
)

// freePort returns a free port such that port+above, too, is free and within
// the range.
func freePort(above int) (int, error) {
	for range 500 {
		port := lowestPort + rand.IntN(highestPort-above-lowestPort)
		if isFree(port) && (above == 0 || isFree(port+above)) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d", lowestPort, highestPort)
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
