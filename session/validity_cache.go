package session

import (
	"context"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
)

// cachedStore is a redisStore that reads a session without a script if this
// process has read it before: in one pipeline of plain commands, at about half
// the cost for Redis. It caches what never changes of a session (user, end, idle
// time) and when a touch is due. It does not cache that the session is valid:
// each load checks that in Redis.
//
// plainlyValid is the rule of fetch in lua/begin.lua, for sessions that need no
// touch. TestValidityCache_AgreesWithTheScript compares the two.
type cachedStore struct {
	*redisStore
	now   func() int64 // monotonic nanoseconds
	seed  maphash.Seed
	slots [validitySlots]atomic.Pointer[knownSession]
}

// validitySlots bounds the cache; sessions in the same slot replace each other.
const validitySlots = 1 << 13

// knownSession is immutable. Times are those of cachedStore.now.
type knownSession struct {
	member, user string
	remember     bool
	idle         time.Duration
	end          string        // the absolute end, as stored
	ends         time.Duration // the absolute end
	left         time.Duration // when it ends if it is not used
}

func newCachedStore(s *redisStore) *cachedStore {
	return &cachedStore{redisStore: s, now: clock.Now, seed: maphash.MakeSeed()}
}

// load reads a known session by plain commands, and any other by the script.
func (c *cachedStore) load(ctx context.Context, id ident) (reply, error) {
	asked := time.Duration(c.now())
	slot := &c.slots[maphash.String(c.seed, id.member)%validitySlots]
	if known := slot.Load(); known != nil && known.member == id.member && !known.touchDue(asked, known.left-asked-maxDelay) {
		rec, valid, err := c.loadKnown(ctx, id, known, asked)
		if valid || err != nil {
			return reply{status: statusRecord, rec: rec}, err
		}
		slot.CompareAndSwap(known, nil)
	}
	rep, err := c.redisStore.load(ctx, id)
	if rec := &rep.rec; err == nil && rep.status == statusRecord && !rec.frozen && rec.idle > 0 {
		slot.Store(&knownSession{
			member: id.member, user: rec.user, remember: rec.remember,
			idle: rec.idle, end: rec.end, ends: asked + rec.ends, left: asked + rec.left,
		})
	}
	return rep, err
}

// maxDelay is the longest delay between this process' clock reading and Redis'
// PTTL that needs no second round trip.
const maxDelay = 5 * time.Millisecond

// touchDue reports whether the script must run, given the time left: touch in
// lua/begin.lua has the same rule, and knows the end to the microsecond.
func (k *knownSession) touchDue(now, left time.Duration) bool {
	full := min(k.idle, k.ends-now)
	return full < time.Second || (full-left).Abs() >= k.idle/10
}

// loadKnown reads a known session in one pipeline; valid is false if the script
// must decide.
//
// The commands are not atomic, and need not be: an epoch that was replaced and a
// member that was removed from the index never come back. A session that is valid
// by the epoch and the index, which are read last, was valid when its data was
// read, and a revocation that had returned by then is seen.
func (c *cachedStore) loadKnown(ctx context.Context, id ident, k *knownSession, now time.Duration) (rec record, valid bool, err error) {
	at := c.keysOf(id)
	cmds := make([]madcrow.Command, 0, 4)
	cmds = append(cmds, c.r.B().Hmget().Key(at.session).Field("v", "u", "d", "x", "e", "a").Build(), c.r.B().Pttl().Key(at.session).Build())
	if k.user != "" {
		cmds = append(cmds, c.r.B().Get().Key(at.epoch).Build(), c.r.B().Zscore().Key(at.index).Member(id.member).Build())
	}
	res, err := c.r.DoMulti(ctx, cmds...)
	if err != nil {
		return rec, false, err
	}
	fields, bad := elementsOf(res[0])
	ms, _, noTTL := res[1].Int()
	left := time.Duration(ms) * time.Millisecond
	if bad != nil || noTTL != nil || ms < 0 || !plainlyValid(k, fields, res[2:]) || k.touchDue(now, left) {
		return rec, false, nil
	}
	return record{
		version: textOf(fields[0]), user: k.user, data: textOf(fields[2]), remember: k.remember,
		ends: k.ends - now, left: left, idle: k.idle, end: k.end,
	}, true, nil
}

// plainlyValid reports whether a session is valid: its hash is there, not
// rotated, of the same user and end; a user's also has the current epoch and is in
// the index. fields are v, u, d, x, e, a; index are the replies of GET epoch and
// ZSCORE.
func plainlyValid(k *knownSession, fields []madcrow.Message, index []madcrow.Reply) bool {
	if len(fields) != 6 || fields[0].IsNil() || fields[2].IsNil() || !fields[3].IsNil() || textOf(fields[1]) != k.user || textOf(fields[5]) != k.end {
		return false
	}
	if k.user == "" {
		return true
	}
	epoch, _ := index[0].Message()
	place := index[1]
	return !epoch.IsNil() && !place.IsNil() && textOf(epoch) == textOf(fields[4])
}
