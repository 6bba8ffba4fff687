package session

import (
	"context"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// validitySlots bounds how many sessions are remembered: those that share a slot
// replace one another.
const validitySlots = 1 << 13

// recents are sessions that the script has read: whose they are and when they
// end, which never changes. Such a session is read with plain commands in its
// place, at about half the cost for Redis, until it is due to be touched. That
// it is valid is not remembered: Redis is asked each time.
type validityCache struct {
	seed  maphash.Seed
	base  time.Time
	slots [validitySlots]atomic.Pointer[knownSession]
}

// recent is one of them. It does not change; times are since base.
type knownSession struct {
	member, user string
	remember     bool
	idle         time.Duration
	end          string        // as stored
	ends, left   time.Duration // when it ends, and when it does if nobody uses it
}

func newValidityCache() *validityCache {
	return &validityCache{seed: maphash.MakeSeed(), base: time.Now()}
}

func (r *validityCache) now() time.Duration { return time.Since(r.base) }

func (r *validityCache) slot(id ident) *atomic.Pointer[knownSession] {
	return &r.slots[maphash.String(r.seed, id.member)%validitySlots]
}

// put remembers what the script replied to a question of that time.
func (r *validityCache) put(id ident, rec record, asked time.Duration) {
	if rec.frozen || rec.idle <= 0 {
		return
	}
	r.slot(id).Store(&knownSession{
		member: id.member, user: rec.user, remember: rec.remember,
		idle: rec.idle, end: rec.end, ends: asked + rec.ends, left: asked + rec.left,
	})
}

// travel is how much later than this process Redis may look at what is left.
// Where it is more, a read takes a second round trip.
const travel = 5 * time.Millisecond

// get returns nil for a session that the script must read.
func (r *validityCache) get(id ident, now time.Duration) *knownSession {
	k := r.slot(id).Load()
	if k == nil || k.member != id.member || k.due(now, k.left-now-travel) {
		return nil
	}
	return k
}

// due says whether the script must look, when so much is left: it touches the
// session by the same rule, and knows the end to the microsecond.
func (k *knownSession) due(now, left time.Duration) bool {
	full := min(k.idle, k.ends-now)
	return full < time.Second || (full-left).Abs() >= k.idle/10
}

// fetchKnown reads a session in one round trip and without a script. It is
// false for any that is not known, and for one that is not plainly valid, which
// is forgotten.
//
// Its commands are not one step, and need not be: an epoch that was replaced
// and a place in the index that was lost never come back. So what is valid by
// those was valid when its data was read before, and a revocation that had
// returned by then is seen.
func (m *Manager[T]) fetchKnown(ctx context.Context, id ident) (rec record, ok bool, err error) {
	now := m.validity.now()
	k := m.validity.get(id, now)
	if k == nil {
		return rec, false, nil
	}
	defer func() {
		if !ok && err == nil {
			m.validity.slot(id).CompareAndSwap(k, nil)
		}
	}()
	at := m.keysOf(id)
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		cmds := make([]madcrow.Command, 0, 4)
		cmds = append(cmds, b.Hmget().Key(at.session).Field("v", "u", "d", "x", "e", "a").Build(), b.Pttl().Key(at.session).Build())
		if k.user != "" {
			cmds = append(cmds, b.Get().Key(at.epoch).Build(), b.Zscore().Key(at.index).Member(id.member).Build())
		}
		return cmds
	})
	if err != nil {
		return rec, false, err
	}
	f, err := res[0].Message.ToArray()
	if err != nil || len(f) != 6 || f[0].IsNil() || f[2].IsNil() || !f[3].IsNil() || text(f[1]) != k.user || text(f[5]) != k.end {
		return rec, false, nil // the script says what it is
	}
	if k.user != "" && (res[2].Message.IsNil() || res[3].Message.IsNil() || text(res[2].Message) != text(f[4])) {
		return rec, false, nil
	}
	ms, err := res[1].Message.AsInt64()
	left := time.Duration(ms) * time.Millisecond
	if err != nil || ms < 0 || k.due(now, left) {
		return rec, false, nil
	}
	return record{
		version: text(f[0]), user: k.user, data: text(f[2]), remember: k.remember,
		ends: k.ends - now, left: left, idle: k.idle, end: k.end,
	}, true, nil
}

// text is that of a reply which is one.
func text(m madcrow.Message) string {
	s, _ := m.ToString()
	return s
}
