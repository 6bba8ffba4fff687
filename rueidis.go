package madcrow

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// This file is the adapter that plays a rueidis.Client. It stands in this package
// and not in a module of contrib, because it sends through the same topology,
// deadlines and connections as every call; those are internal. Nothing else of
// the package uses it.

// Client is a rueidis.Client for all that Redis has no method for, and for
// rueidiscompat. It stays the same for life, connected or not. Its calls pass
// the same availability check, deadlines and size limits as [Redis.Do]. It differs from
// there in that errors of Redis come as rueidis gives them, that a nil reply
// is rueidis.Nil, and that nothing is retried; DoCache asks Redis each time.
//
// Each dedicated connection is a new one, counts like those of transactions,
// and ends when it is given back; the calls on it are bounded by their own
// contexts alone. With a cluster it is one to any node, and is not redirected.
// Close does nothing; use [Redis.Close].
func (r *Redis) Client() rueidis.Client { return &r.client }

// client is the rueidis.Client that Client returns.
type client struct{ r *Redis }

var _ rueidis.Client = (*client)(nil)

func (c *client) B() rueidis.Builder { return c.r.builder }

func (c *client) Mode() rueidis.ClientMode {
	switch {
	case c.r.topology.Clustered():
		return rueidis.ClientModeCluster
	case c.r.cfg.Sentinel.Enabled:
		return rueidis.ClientModeSentinel
	}
	return rueidis.ClientModeStandalone
}

func (c *client) Nodes() map[string]rueidis.Client {
	nodes := map[string]rueidis.Client{}
	c.r.topology.Each(func(n *node.Node) { nodes[n.Addr()] = c })
	return nodes
}

func (c *client) Close() {}

func (c *client) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	return c.r.once(ctx, cmd)[0]
}

func (c *client) DoMulti(ctx context.Context, multi ...rueidis.Completed) []rueidis.RedisResult {
	if len(multi) == 0 {
		return nil
	}
	return c.r.once(ctx, multi...)
}

func (c *client) DoCache(ctx context.Context, cmd rueidis.Cacheable, _ time.Duration) rueidis.RedisResult {
	return c.Do(ctx, rueidis.Completed(cmd))
}

func (c *client) DoMultiCache(ctx context.Context, multi ...rueidis.CacheableTTL) []rueidis.RedisResult {
	cmds := make([]rueidis.Completed, len(multi))
	for i, m := range multi {
		cmds[i] = rueidis.Completed(m.Cmd)
	}
	return c.DoMulti(ctx, cmds...)
}

// once sends ready-made commands, which belong to the client after that, so
// there is no second try.
func (r *Redis) once(caller context.Context, cmds ...Command) []rueidis.RedisResult {
	start := clock.Now()
	ctx, cc := r.deadlines.Enter(caller, start)
	defer r.deadlines.Leave(cc)
	var replies []rueidis.RedisResult
	var froms []*node.Node
	p, e := topology.Inspect(cmds, r.cfg.MaxValueSize, nil)
	switch {
	case e != nil:
	case r.topology.Clustered():
		for i := range cmds {
			cmds[i] = cmds[i].Pin() // it may have to be sent again, elsewhere
		}
		replies, froms, _ = r.topology.Spread(ctx, p, cmds, func(i int) Command { return cmds[i] })
	default:
		replies, e = r.topology.One().Send(ctx, p.Dedicated, p.Size, cmds)
	}
	if e != nil {
		replies = make([]rueidis.RedisResult, len(cmds))
		for i := range replies {
			replies[i] = rueidis.NewErrorResult(publicError(e.For(cmds[i].Commands()[0])))
		}
	}
	first := e
	for i, res := range replies {
		if e != nil {
			continue
		}
		n := r.topology.One()
		if froms != nil {
			n = froms[i]
		}
		err := res.Error()
		if err == nil || rueidis.IsRedisNil(err) {
			if msg, err := res.ToMessage(); err == nil {
				n.InspectExec(ctx, p.Steps[i].Op, msg)
			}
			continue
		}
		f := n.NoteFailure(ctx, p.Steps[i].Op, err, p.Idempotency)
		if _, ok := rueidis.IsRedisErr(err); !ok {
			replies[i] = rueidis.NewErrorResult(publicError(f.Error))
		}
		if first == nil {
			first = f.Error
		}
	}
	if r.rec != nil {
		name := p.Steps[0].Op
		if len(p.Steps) > 1 {
			name = "PIPELINE"
		}
		r.record(caller, name, len(p.Steps), start, 0, first)
	}
	return replies
}

func (c *client) Receive(ctx context.Context, subscribe rueidis.Completed, fn func(rueidis.PubSubMessage)) error {
	return c.r.receive(ctx, subscribe, fn)
}

func (c *client) DoStream(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResultStream {
	return c.DoMultiStream(ctx, cmd)
}

func (c *client) DoMultiStream(ctx context.Context, multi ...rueidis.Completed) rueidis.MultiRedisResultStream {
	if len(multi) == 0 {
		return rueidis.NewErrorResultStream(fault.ErrNotConnected)
	}
	if _, err := topology.Inspect(multi, c.r.cfg.MaxValueSize, nil); err != nil {
		return rueidis.NewErrorResultStream(publicError(err))
	}
	n, err := c.r.topology.Pick(ctx, topology.FirstSlot(multi))
	if err == nil {
		err = n.Availability.Wait(ctx)
	}
	if err != nil {
		return rueidis.NewErrorResultStream(publicError(err.For(multi[0].Commands()[0])))
	}
	ctx, cancel := context.WithTimeout(ctx, c.r.cfg.CommandTimeout)
	defer cancel()
	return n.Streams.DoMultiStream(ctx, multi...)
}

func (c *client) Dedicated(fn func(rueidis.DedicatedClient) error) error {
	dc, release := c.Dedicate()
	defer release()
	return fn(dc)
}

func (c *client) Dedicate() (rueidis.DedicatedClient, func()) {
	ctx, cancel := context.WithTimeout(context.Background(), c.r.cfg.CommandTimeout)
	defer cancel()
	n, e := c.r.topology.Pick(ctx, topology.Keyless)
	if e == nil {
		e = n.Dedicated.AcquirePermit(ctx)
	}
	if e != nil {
		return refusedClient{c: c, err: publicError(e.For("dedicate"))}, func() {}
	}
	d, release, err := n.Dedicated.Dedicate(ctx)
	if err != nil {
		return refusedClient{c: c, err: publicError(fault.NotSent("dedicate", fault.KindUnavailable, err))}, func() {}
	}
	acquired := dedicatedClient{DedicatedClient: d, end: sync.OnceFunc(release)}
	return acquired, acquired.end
}

// dedicatedClient is a dedicated connection; either way to end it releases it.
type dedicatedClient struct {
	rueidis.DedicatedClient
	end func()
}

func (d dedicatedClient) Close() { d.end() }

// refusedClient stands for a dedicated connection that could not be had.
type refusedClient struct {
	c   *client
	err error
}

var _ rueidis.DedicatedClient = refusedClient{}

func (d refusedClient) B() rueidis.Builder { return d.c.B() }

func (d refusedClient) Do(context.Context, rueidis.Completed) rueidis.RedisResult {
	return rueidis.NewErrorResult(d.err)
}

func (d refusedClient) DoMulti(_ context.Context, multi ...rueidis.Completed) []rueidis.RedisResult {
	out := make([]rueidis.RedisResult, len(multi))
	for i := range out {
		out[i] = rueidis.NewErrorResult(d.err)
	}
	return out
}

func (d refusedClient) Receive(context.Context, rueidis.Completed, func(rueidis.PubSubMessage)) error {
	return d.err
}

func (d refusedClient) SetPubSubHooks(rueidis.PubSubHooks) <-chan error { return d.gone() }

func (d refusedClient) SetOnInvalidations(func([]rueidis.RedisMessage)) <-chan error { return d.gone() }

func (d refusedClient) gone() <-chan error {
	ch := make(chan error, 1)
	ch <- d.err
	close(ch)
	return ch
}

func (d refusedClient) Close() {}
