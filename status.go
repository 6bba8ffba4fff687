package madcrow

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
)

// State is what was last observed. It sends nothing.
func (r *Redis) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.State
}

// Available says whether a call would be sent now. It sends nothing.
func (r *Redis) Available() bool {
	switch state, _ := r.topology.Availability(); state {
	case availability.Up:
		return true
	case availability.Probing:
		s := r.State()
		return s == StateUp || s == StateDegraded
	}
	return false
}

// Err says why Redis is not available, as an [*Error]; nil when it is. It sends
// nothing.
func (r *Redis) Err() error {
	if r.Available() {
		return nil
	}
	if _, why := r.topology.Availability(); why != nil {
		return publicError(why)
	}
	return publicError(fault.NotSent("connect", fault.KindUnavailable, fault.ErrNotConnected))
}

// Status is all that was last observed. It sends nothing.
func (r *Redis) Status() Status {
	r.mu.Lock()
	st := r.last
	r.mu.Unlock()
	return r.detailed(st)
}

func (r *Redis) detailed(st Status) Status {
	t := r.topology.Describe()
	st.Connections, st.ReadReplicas, st.Master, st.SlotsCovered = t.Connections, t.ReadReplicas, t.Master, t.SlotsCovered
	st.Sentinels = (*SentinelStatus)(t.Sentinels)
	for _, n := range t.Nodes {
		ns := NodeStatus{Address: n.Address, Available: n.Up, RTT: n.RTT, Server: serverInfo(n.Info)}
		if n.Err != nil {
			ns.Err = publicError(n.Err)
		}
		if n.Info != nil && st.Server.At.Before(n.Info.At) {
			st.Server = ns.Server
		}
		st.RTT = max(st.RTT, n.RTT)
		if r.topology.Clustered() {
			st.Nodes = append(st.Nodes, ns)
		}
	}
	return st
}

func serverInfo(info *node.ServerInfo) (out ServerInfo) {
	if info == nil {
		return out
	}
	out = ServerInfo{
		Name: info.Name, Version: info.Version, ConnectedClients: info.ConnectedClients,
		UsedMemoryHuman: info.UsedMemoryHuman, Uptime: info.Uptime,
		MaxMemoryPolicy: info.MaxMemoryPolicy, EvictedKeys: info.EvictedKeys, Role: info.Role, At: info.At,
	}
	for _, r := range info.Replicas {
		out.Replicas = append(out.Replicas, ReplicaStatus(r))
	}
	return out
}

// Watch yields the current status at once and then every change of it, until
// ctx ends or the Redis is closed; then the channel is closed. A slow reader
// misses intermediate changes, never the last.
func (r *Redis) Watch(ctx context.Context) <-chan Status {
	ch := make(chan Status, 1)
	r.mu.Lock()
	over := r.last.State == StateClosed
	ch <- r.detailed(r.last)
	if !over {
		r.watchers[ch] = struct{}{}
	}
	r.mu.Unlock()
	if over {
		close(ch)
		return ch
	}
	context.AfterFunc(ctx, func() { r.unwatch(ch) })
	return ch
}

func (r *Redis) unwatch(ch chan Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.watchers[ch]; ok {
		delete(r.watchers, ch)
		close(ch)
	}
}

// observe derives the state from the availability and notifies the watchers of a
// change.
func (r *Redis) observe() {
	r.observing.Lock() // one change after the other, and none twice
	defer r.observing.Unlock()
	from, to := r.update()
	if to.State != from.State && r.rec != nil {
		r.rec.StateChange(from.State, to.State)
	}
}

func (r *Redis) update() (from, to Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, to = r.last, r.last
	state, why := r.topology.Availability()
	to.ReadOnly = r.topology.ReadOnly()
	switch state {
	case availability.Closed:
		to.State, to.Err = StateClosed, fault.ErrClosed
	case availability.Down:
		to.State, to.Err = StateDown, publicError(why)
	case availability.Up:
		to.State, to.Err = StateUp, nil
		if to.ReadOnly {
			to.State, to.Err = StateDegraded, publicError(fault.NotSent("connect", fault.KindReadOnly, fault.ErrReadOnly))
		} else if r.cfg.Embedded {
			to.State = StateDegraded
		} else if why := r.topology.Lacks(); why != nil {
			to.State, to.Err = StateDegraded, publicError(why)
		} else if why := r.topology.Restriction(); why != nil {
			to.State, to.Err = StateDegraded, publicError(why)
		}
	case availability.Probing: // not known, no change
	}
	if from.State == StateClosed || to.State == from.State && to.ReadOnly == from.ReadOnly && fault.SameText(to.Err, from.Err) {
		return from, from
	}
	if to.State != from.State {
		to.Since = time.Now()
	}
	r.last = to
	r.tell(r.detailed(to))
	return from, to
}

// tell hands a change to the watchers. The channel holds one: a reader that
// has not seen the one before gets the newer.
func (r *Redis) tell(st Status) {
	for ch := range r.watchers {
		select {
		case <-ch:
		default:
		}
		ch <- st
		if st.State == StateClosed {
			delete(r.watchers, ch)
			close(ch)
		}
	}
}

// address is where the data is, without credentials.
func (c Config) address() string {
	switch {
	case c.Socket != "":
		return c.Socket
	case c.Sentinel.Enabled:
		return c.Sentinel.ServiceName + " by " + strings.Join(c.Sentinel.Addresses, ",")
	case c.Cluster.Enabled:
		return strings.Join(c.Cluster.Addresses, ",")
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}

func (c Config) mode() string {
	switch {
	case c.Embedded:
		return "embedded"
	case c.Sentinel.Enabled:
		return "sentinel"
	case c.Cluster.Enabled:
		return "cluster"
	}
	return "standalone"
}
