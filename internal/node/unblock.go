package node

import (
	"context"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/unblock"
)

// unblockBackoff gives the pauses between tries to unblock a command: the first
// may reach Redis before the command does.
var unblockBackoff = clock.Backoff{First: time.Millisecond, Most: 50 * time.Millisecond}

// unblockTimeout is how long one try may take.
const unblockTimeout = time.Second

// unblockable has the command that runs next on c ended in Redis when the context
// of [unblock.When] ends. The function that it returns is called after the command,
// before c is released: a late CLIENT UNBLOCK would end the command of its next
// user.
func (n *Node) unblockable(ctx context.Context, c *conn.Dedicated) (done func()) {
	stop := unblock.From(ctx)
	if stop == nil {
		return func() {}
	}
	id := c.ID(ctx)
	if id == 0 {
		return func() {}
	}
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	finished := make(chan struct{})
	cancel := context.AfterFunc(stop, func() {
		defer close(finished)
		for failures := 0; running.Err() == nil; failures++ {
			n.unblock(c, id)
			_ = clock.Sleep(running, unblockBackoff.Delay(failures))
		}
	})
	return func() {
		end()
		if !cancel() {
			<-finished
		}
	}
}

// unblock ends the command that waits in Redis on a connection. Without an answer
// it may still be on its way, so that the connection is not used again.
func (n *Node) unblock(c *conn.Dedicated, id int64) {
	ctx, cancel := context.WithTimeout(context.Background(), unblockTimeout)
	defer cancel()
	s, err := n.Enter(ctx)
	if err != nil {
		return
	}
	if s.Do(ctx, n.Builder.Arbitrary("CLIENT", "UNBLOCK", strconv.FormatInt(id, 10)).Build(), false).NonRedisError() != nil {
		c.NotReusable()
	}
}
