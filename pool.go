package madcrow

import (
	"context"

	"github.com/redis/rueidis"
)

// pool lends connections that one caller has for itself: for transactions,
// blocking commands and large values. Its client does not hear contexts while
// it dials or reads, so a borrowed connection is only ever used by a goroutine
// that the caller can leave behind.
type pool struct {
	node    *node
	client  rueidis.Client
	permits chan struct{}
}

func newPool(n *node, client rueidis.Client, size int) *pool {
	return &pool{node: n, client: client, permits: make(chan struct{}, size)}
}

// take waits for a permit.
func (p *pool) take(ctx context.Context) *Error {
	if err := p.node.gate.pass(ctx); err != nil {
		return err
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: waited(ctx.Err(), &Error{Err: errBorrowed})}
	}
}

func (p *pool) give() { <-p.permits }

// do sends commands on a borrowed connection. The caller has a permit, which
// do gives back, be it after the caller has left. sent is false when the
// commands were surely never sent.
func (p *pool) do(ctx context.Context, cmds ...Command) (results []rueidis.RedisResult, sent bool, err error) {
	type reply struct {
		results []rueidis.RedisResult
		sent    bool
	}
	done := make(chan reply, 1)
	go func() {
		defer p.give()
		conn, release := p.client.Dedicate()
		if ctx.Err() != nil {
			release()
			done <- reply{}
			return
		}
		r := conn.DoMulti(ctx, cmds...)
		if broken(r) {
			conn.Close()
		} else {
			release()
		}
		done <- reply{r, true}
	}()
	select {
	case r := <-done:
		if !r.sent {
			return nil, false, ctx.Err()
		}
		return r.results, true, nil
	case <-ctx.Done():
		return nil, true, ctx.Err()
	}
}

func broken(results []rueidis.RedisResult) bool {
	for _, r := range results {
		if r.NonRedisError() != nil {
			return true
		}
	}
	return false
}
