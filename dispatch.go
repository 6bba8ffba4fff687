package madcrow

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// The few things that differ between one node and a cluster of them.

// pick returns the node for a slot, as the Builder counts them.
func (r *Redis) pick(ctx context.Context, slot uint16) (*node, *fault.Error) {
	if r.cluster == nil {
		return r.node, nil
	}
	return r.cluster.pick(ctx, slot)
}

// follow says where a redirected call goes next.
func (r *Redis) follow(from *node, err error) (redirect, bool) {
	if r.cluster == nil {
		return redirect{}, false
	}
	return r.cluster.follow(from, err)
}

// look returns the state of the gate, or what the gates of all nodes amount to.
func (r *Redis) currentAvailability() (availability.State, *fault.Error) {
	if r.cluster == nil {
		return r.node.availability.Current()
	}
	return r.cluster.summary()
}

// each calls fn for every node.
func (r *Redis) each(fn func(*node)) {
	if r.cluster == nil {
		fn(r.node)
		return
	}
	r.cluster.each(func(n *clusterNode) { fn(n.node) })
}

// restriction is what a node refuses that is connected, or nil.
func (r *Redis) restriction() (why *fault.Error) {
	r.each(func(n *node) {
		if why == nil {
			why = n.restriction()
		}
	})
	return why
}

func (r *Redis) inflight() (sum int32) {
	r.each(func(n *node) { sum += n.inflight() })
	return sum
}

// shut closes the gates for good.
func (r *Redis) shut(why *fault.Error) {
	if c := r.cluster; c != nil {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.availability.Set(availability.Closed, why)
	}
	r.each(func(n *node) { n.availability.Set(availability.Closed, why) })
}

func (r *Redis) closeNodes() {
	if r.replicas != nil {
		r.replicas.close()
	}
	if r.cluster == nil {
		r.node.close()
		return
	}
	r.cluster.each(func(n *clusterNode) { n.end() })
}

// anyBuilder returns a Builder that belongs to no connection.
func anyBuilder() (Builder, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"none"}, ForceSingleClient: true, DisableCache: true,
		DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
			return nil, fault.ErrNotOpen
		},
	})
	if c == nil {
		return Builder{}, err
	}
	defer c.Close()
	return c.B(), nil
}
