package node

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// probeTimeout is short at first, so that a lost packet does not cost seconds,
// and later as long as the configuration allows.
func (n *Node) probeTimeout(try int) time.Duration {
	return min(n.Config.ConnectTimeout, max(time.Second<<min(try, 12), 3*time.Duration(n.Handshake.Load())))
}

// probe asks on a connection of its own whether the node answers. What it
// answers is of no interest, unless it says that it cannot serve.
func (n *Node) probe(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	c, err := n.Dial(ctx, n.Addr(), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	asked := time.Now()
	if _, err := c.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(c, 512).ReadString('\n')
	if err != nil {
		if ctx.Err() != nil {
			return fault.ErrSilent
		}
		return err
	}
	n.RTT.Store(int64(time.Since(asked)))
	n.Handshake.Store(int64(time.Since(start)))
	line = strings.TrimRight(line, "\r\n")
	if text, ok := strings.CutPrefix(line, "-"); ok && fault.RefusesConnection(text) {
		return fault.Refusal(text)
	}
	if !strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "-") {
		return fmt.Errorf("this is no Redis: it answered %.40q", line)
	}
	return nil
}
