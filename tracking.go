package madcrow

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/node"
)

// Tracking is the time in which the server notifies this process of changes to
// what it has read: it ends with the connection, with FLUSHALL, and when the
// node is no longer the one that serves. What was read under a Tracking that
// is over may be stale.
type Tracking conn.Tracking

// Valid reports whether invalidations of what was read are still received, and
// the node is not known to be away. A node that was away and comes back on the
// same connection has sent by then what it had to send, and the Tracking is valid
// again. Valid is false for nil.
func (t *Tracking) Valid() bool { return (*conn.Tracking)(t).Valid() }

// Tracked is what [Redis.GetTracked] read of one key.
type Tracked struct {
	// Message is the value, a string; a missing key is Message.IsNil().
	Message Message
	// TTL is the lifetime that is left, -1 for none.
	TTL time.Duration
	// Tracking is nil when the server does not tell of changes to the key: it
	// refuses to, no notification has arrived on this connection yet (see
	// docs/adr/0004), or the key is being moved.
	Tracking *Tracking
	// Err is an [*Error], or nil.
	Err error
}

// OnInvalidate calls fn with every key that the server says was changed, after
// it was read with [Redis.GetTracked], by whomever, this process included. fn
// runs on the reader of a connection: it must be quick, must not call Redis and
// must not end its goroutine; a panic is logged. stop ends it.
func (r *Redis) OnInvalidate(fn func(key string)) (stop func()) {
	said := &guard.Said{}
	return r.listeners.Add(func(key string) {
		defer func() {
			if p := recover(); p != nil {
				sayPanic(r.log, said, "OnInvalidate", guard.Recovered(p))
			}
		}()
		fn(key)
	})
}

// trackedChunk is how many keys are read in one pipeline.
const trackedChunk = 256

// GetTracked reads strings and their lifetimes, and has the server tell
// [Redis.OnInvalidate] when one changes, or appears where it was missing: once
// for each read. A caller that keeps a value must have noted the key before it
// calls, and drop the keys that it was notified of meanwhile. It takes one round trip for
// each node. The result has one entry for each key, in the same order. Deadlines,
// retries and errors are those of [Redis.Do]; of the options only [Timeout] has a
// meaning here.
func (r *Redis) GetTracked(ctx context.Context, keys []string, opts ...DoOption) []Tracked {
	return r.getWithin(ctx, true, keys, opts)
}

// GetWithTTL is GetTracked for who keeps nothing: the server need not remember
// that it was asked, and Tracking is nil.
func (r *Redis) GetWithTTL(ctx context.Context, keys []string, opts ...DoOption) []Tracked {
	return r.getWithin(ctx, false, keys, opts)
}

func (r *Redis) getWithin(ctx context.Context, track bool, keys []string, opts []DoOption) []Tracked {
	out := make([]Tracked, len(keys))
	if len(keys) == 0 {
		return out
	}
	start := clock.Now()
	bounded, cc := r.deadlines.Within(ctx, start, together(opts).within(r.deadlines.Timeout))
	defer r.deadlines.Leave(cc)
	if len(keys) == 1 {
		r.getOfNode(bounded, track, keys, []int{0}, out)
	} else {
		r.getByNode(bounded, track, keys, out)
	}
	if r.rec != nil {
		var kind Kind
		for i := range out {
			if e, ok := out[i].Err.(*Error); ok && kind == 0 { //nolint:errorlint // it is made here
				kind = e.Kind
			}
		}
		r.recordKind(ctx, "GET", len(keys), start, 0, kind)
	}
	return out
}

// getByNode groups keys by node.
func (r *Redis) getByNode(ctx context.Context, track bool, keys []string, out []Tracked) {
	groups := map[*node.Node][]int{}
	for i, key := range keys {
		n, err := r.topology.Pick(ctx, r.topology.SlotOf(key))
		if err != nil {
			out[i].Err = publicError(err.For("GET"))
			continue
		}
		groups[n] = append(groups[n], i)
	}
	var wg sync.WaitGroup
	for _, of := range groups {
		for part := range slices.Chunk(of, trackedChunk) {
			wg.Go(func() { r.getOfNode(ctx, track, keys, part, out) })
		}
	}
	wg.Wait()
}

// getOfNode reads keys of one node.
func (r *Redis) getOfNode(ctx context.Context, track bool, keys []string, of []int, out []Tracked) {
	n, e := r.topology.Pick(ctx, r.topology.SlotOf(keys[of[0]]))
	var s *conn.Shared
	if e == nil && !n.Availability.IsUp() {
		e = n.Availability.Wait(ctx)
	}
	var t *conn.Tracking
	if e == nil {
		s = n.NextShared()
		if track {
			t = s.EnsureTracking(ctx, func() string { return r.topology.ProofKey(n) })
		}
		e = s.Enter(ctx)
	}
	if e != nil {
		for _, i := range of {
			out[i].Err = publicError(e.For("GET"))
		}
		return
	}
	each := 3
	if t == nil {
		each = 2
	}
	cmds := make([]Command, 0, each*len(of))
	for _, i := range of {
		if t != nil {
			cmds = append(cmds, n.Builder.ClientCaching().Yes().Build())
		}
		cmds = append(cmds, n.Builder.Get().Key(keys[i]).Build(), n.Builder.Pttl().Key(keys[i]).Build())
	}
	replies := s.DoMulti(ctx, cmds)
	for k, i := range of {
		part := replies[k*each : (k+1)*each]
		tracked := t
		if t != nil {
			// Who no longer has the slot does not tell, and another has ended
			// its tracking before we began ours. A connection that is not
			// proven may never tell.
			if part[0].Error() != nil || !t.IsProven() || !r.topology.Serves(n, keys[i]) {
				tracked = nil
			}
			part = part[1:]
		}
		out[i] = r.readTracked(ctx, n, keys[i], part, tracked)
	}
}

// readTracked reads one reply. What was redirected or is worth another try is
// asked again the usual way.
func (r *Redis) readTracked(ctx context.Context, n *node.Node, key string, replies []rueidis.RedisResult, t *conn.Tracking) Tracked {
	msg, err := replies[0].ToMessage()
	if err == nil || err == rueidis.Nil { //nolint:errorlint // the client's own value
		ms, err := replies[1].AsInt64()
		if err == nil {
			return Tracked{Message: msg, TTL: lifeOf(msg, ms), Tracking: (*Tracking)(t)}
		}
	}
	if err == nil {
		err = replies[1].Error()
	}
	if f := n.NoteFailure(ctx, "GET", err, fault.ReadOnly); !f.Retry && !redirected(f) {
		return Tracked{Err: publicError(f.Error)}
	}
	b := r.builder
	results, _, e := r.doMulti(ctx, []Command{b.Get().Key(key).Build(), b.Pttl().Key(key).Build()})
	if e != nil {
		return Tracked{Err: publicError(e)}
	}
	ms, err := results[1].msg.AsInt64()
	if err != nil {
		return Tracked{Err: publicError(n.NoteFailure(ctx, "PTTL", err, fault.ReadOnly).Error)}
	}
	return Tracked{Message: results[0].msg, TTL: lifeOf(results[0].msg, ms)}
}

func redirected(f fault.Failure) bool {
	_, reply := rueidis.IsRedisErr(f.Err)
	return reply && f.Kind == fault.KindUnavailable && f.Restricts == fault.Unrestricted
}

// lifeOf is the lifetime by the reply to PTTL: a value that was there when it
// was read, and is not any more, is at its end.
func lifeOf(msg Message, ms int64) time.Duration {
	if ms < 0 {
		if ms == -2 && !msg.IsNil() {
			return 0
		}
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}
