package conn

import (
	"net"
	"sync"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// conn is one open connection to a data node. It reports to its owner, if it
// has one, when bytes come and when it ends.
type conn struct {
	net.Conn
	set       *Set
	shared    *Shared
	dedicated *Dedicated
	sub       bool // for pub/sub
	once      sync.Once
}

// Write sends what the client has buffered. While it yields, calls append to the
// next write.
func (c *conn) Write(p []byte) (int, error) {
	if c.shared != nil {
		c.shared.coalesce()
	}
	return c.Conn.Write(p)
}

// Read notes when bytes come.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.shared != nil {
		c.shared.lastRead.Store(clock.Now())
	}
	return n, err
}

// Close is called by the client for every connection that ends, for whatever
// reason.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.set.remove(c)
		if c.shared != nil {
			c.shared.disconnected(c)
		}
		if c.dedicated != nil {
			c.dedicated.conn.CompareAndSwap(c, nil)
		}
	})
	return err
}
