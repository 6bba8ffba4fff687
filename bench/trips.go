package main

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// tripCounter stands between a client and Redis and counts round trips: how
// often something is sent after something has come back, over each connection.
type tripCounter struct {
	listener net.Listener
	server   string
	trips    atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

func newTripCounter(e *environment) (*tripCounter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &tripCounter{listener: l, server: net.JoinHostPort(e.host, strconv.Itoa(e.port))}
	go c.serve()
	e.closers = append(e.closers, c.close)
	return c, nil
}

func (c *tripCounter) port() int { return c.listener.Addr().(*net.TCPAddr).Port }

func (c *tripCounter) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	return c.listener.Close()
}

func (c *tripCounter) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, client, server)
		c.mu.Unlock()
		var asked atomic.Bool // since something came back
		go c.pass(server, client, func() {
			if !asked.Swap(true) {
				c.trips.Add(1)
			}
		})
		go c.pass(client, server, func() { asked.Store(false) })
	}
}

func (c *tripCounter) pass(to io.WriteCloser, from io.Reader, note func()) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			note()
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
