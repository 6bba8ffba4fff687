package ratelimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
)

const (
	// maxReturns bounds the places that wait to be given back.
	maxReturns = 10_000
	// maxReturnWait is the longest time between two tries.
	maxReturnWait = time.Second
)

// returns are places that Redis may hold for nobody: of an Acquire whose
// outcome is unknown, and of a Release that failed. One goroutine gives them
// back while there are any, each until its lease has ended by itself.
type returns struct {
	mu     sync.Mutex
	list   []returned
	giving bool
}

type returned struct {
	lease *Lease
	until time.Time
	// unheard is for an Acquire that may still be on its way: that it was not
	// held has to be said twice.
	unheard bool
}

func (c *Concurrency) giveBack(lease *Lease, unheard bool) {
	c.returns.mu.Lock()
	defer c.returns.mu.Unlock()
	if len(c.returns.list) >= maxReturns {
		return // its length ends it
	}
	c.returns.list = append(c.returns.list, returned{lease, time.Now().Add(c.length), unheard})
	if !c.returns.giving {
		c.returns.giving = true
		go c.giveAllBack()
	}
}

func (c *Concurrency) giveAllBack() {
	wait := maxReturnWait / 16
	for {
		c.returns.mu.Lock()
		list := c.returns.list
		if c.returns.list = nil; len(list) == 0 {
			c.returns.giving = false
			c.returns.mu.Unlock()
			return
		}
		c.returns.mu.Unlock()
		left, err := c.tryToGiveBack(list)
		if errors.Is(err, madcrow.ErrClosed) {
			left = nil
		}
		if len(left) == 0 {
			continue
		}
		c.returns.mu.Lock()
		c.returns.list = slices.Concat(left, c.returns.list)
		c.returns.mu.Unlock()
		time.Sleep(wait)
		wait = min(2*wait, maxReturnWait)
	}
}

// tryToGiveBack returns those that are left after the first failure.
func (c *Concurrency) tryToGiveBack(list []returned) (left []returned, err error) {
	for i, r := range list {
		if time.Now().After(r.until) {
			continue
		}
		reply, err := c.ask(context.Background(), "3", r.lease)
		if err != nil {
			return append(left, list[i:]...), err
		}
		if reply.retry == 0 && r.unheard {
			r.unheard = false
			left = append(left, r)
		}
	}
	return left, nil
}
