package session

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the fallback copies in this process.
const (
	maxCopies    = 10000
	maxCopyBytes = 32 << 20
)

// fallbackCopies are the sessions that this process read last, for routes that may
// read without Redis. When they are full they drop copies at random.
type fallbackCopies struct {
	life time.Duration
	on   atomic.Bool // there is such a route
	mu   sync.Mutex
	of   map[string]fallbackCopy
	size int
	ends uint64 // counts the sessions that were ended here
}

type fallbackCopy struct {
	rec record
	at  time.Time
}

func newFallbackCopies(life time.Duration) *fallbackCopies {
	return &fallbackCopies{life: life, of: map[string]fallbackCopy{}}
}

// begin is called before a session is read, for put.
func (c *fallbackCopies) begin() uint64 {
	if !c.on.Load() {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends
}

// put keeps a record, unless a session was ended here since begin: the record may
// be of that session, and read before it ended.
func (c *fallbackCopies) put(id ident, rec record, since uint64) {
	size := len(rec.data) + len(rec.user)
	if !c.on.Load() || rec.frozen || size > maxCopyBytes/16 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends != since {
		return
	}
	c.remove(id.member)
	for k := range c.of { // in a random order
		if len(c.of) < maxCopies && c.size+size <= maxCopyBytes {
			break
		}
		c.remove(k)
	}
	c.of[id.member] = fallbackCopy{rec, time.Now()}
	c.size += size
}

func (c *fallbackCopies) remove(member string) {
	if old, has := c.of[member]; has {
		c.size -= len(old.rec.data) + len(old.rec.user)
		delete(c.of, member)
	}
}

func (c *fallbackCopies) get(id ident) (record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.of[id.member]
	age := time.Since(r.at)
	if !ok || age >= c.life || age >= r.rec.left || age >= r.rec.ends {
		return record{}, false
	}
	return r.rec, true
}

// lost drops a session that was not found.
func (c *fallbackCopies) lost(id ident) {
	if !c.on.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(id.member)
}

// drop drops a session that was ended here. It is called after the end: a read that
// begins later sees the end.
func (c *fallbackCopies) drop(id ident) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends++
	c.remove(id.member)
}

// dropAll drops every copy, after several sessions were ended here.
func (c *fallbackCopies) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends++
	c.size = 0
	clear(c.of)
}
