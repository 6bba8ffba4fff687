package session

import (
	"sync"
	"time"
)

// maxCopies bounds the copies in this process.
const maxCopies = 10000

// copies are what this process read last, for routes that may read without
// Redis. It forgets at random when it is full.
type copies struct {
	life time.Duration
	mu   sync.Mutex
	of   map[string]copied
}

type copied struct {
	rec record
	at  time.Time
}

func newCopies(life time.Duration) *copies {
	return &copies{life: life, of: map[string]copied{}}
}

func (c *copies) put(member string, rec record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.of[member]; !has && len(c.of) >= maxCopies {
		for k := range c.of { // the first that comes
			delete(c.of, k)
			break
		}
	}
	c.of[member] = copied{rec, time.Now()}
}

func (c *copies) get(member string) (record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.of[member]
	age := time.Since(r.at)
	if !ok || age >= c.life || age >= r.rec.left || age >= r.rec.ends {
		return record{}, false
	}
	return r.rec, true
}

func (c *copies) drop(member string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.of, member)
}

func (c *copies) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.of)
}
