package madcrow

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// Each lane is one pipelined connection. Its client keeps sent commands in a
// ring of this many slots and blocks, deaf to contexts, when the ring is full.
// So it never gets full.
const (
	ringScale = 12
	laneSlots = 1<<ringScale - 64 // some stay for the client's own commands
)

// lane is one connection that many calls share.
type lane struct {
	node   *node
	client rueidis.Client
	conn   atomic.Pointer[conn]

	inflight atomic.Int32 // calls that wait for a reply
	lost     atomic.Int32 // calls that gave up, whose replies are still due
	lastRead atomic.Int64 // when bytes last came

	mu     sync.Mutex
	losses []losses // those of lost, by the time when they gave up

	gathering gathering

	waiting atomic.Int32
	freed   chan struct{}

	tracking  atomic.Pointer[Tracking]  // of the connection; nil when it is not on
	untracked atomic.Bool               // the server refuses it on this connection, or never pushes
	proof     atomic.Pointer[pushProof] // of the connection
	beginning chan struct{}             // one begins it
}

// losses are calls that gave up in one stretch of time, which ends at until.
type losses struct {
	until int64
	n     int32
}

// lossStretch is how finely the times are kept.
const lossStretch = int64(16 * time.Millisecond)

func newLane(n *node) *lane {
	return &lane{node: n, freed: make(chan struct{}, laneSlots), beginning: make(chan struct{}, 1)}
}

// enter takes a slot; when all are taken it waits for one.
func (l *lane) enter(ctx context.Context) *Error {
	if l.inflight.Add(1)+l.lost.Load() <= laneSlots {
		return nil
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	for {
		l.inflight.Add(-1)
		if l.lost.Load() > laneSlots/2 {
			// Perhaps nobody is left to prove that the replies came.
			l.node.doubt(&Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errFull})
		}
		select {
		case <-l.freed:
		case <-ctx.Done():
			return &Error{Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: waited(ctx.Err(), &Error{Err: errFull})}
		}
		if err := l.node.gate.pass(ctx); err != nil {
			return err
		}
		if l.inflight.Add(1)+l.lost.Load() <= laneSlots {
			return nil
		}
	}
}

// do sends one command in a slot that is taken, and gives the slot back.
func (l *lane) do(ctx context.Context, cmd Command, asking bool) (res rueidis.RedisResult) {
	if asking {
		return l.doMulti(ctx, []Command{l.node.builder.Asking().Build(), cmd})[1]
	}
	start := clock.Now()
	defer func() {
		l.leave(start, ctx.Err() != nil && res.NonRedisError() != nil)
	}()
	return l.client.Do(ctx, cmd)
}

// doMulti is do for a pipeline.
func (l *lane) doMulti(ctx context.Context, cmds []Command) (res []rueidis.RedisResult) {
	start := clock.Now()
	defer func() {
		l.leave(start, ctx.Err() != nil && len(res) > 0 && res[len(res)-1].NonRedisError() != nil)
	}()
	return l.client.DoMulti(ctx, cmds...)
}

// leave gives the slot back. A call that gave up leaves its slot taken until
// the lane proves that the reply has come: replies come in order, so the reply
// to any call that began later is that proof.
func (l *lane) leave(start int64, gaveUp bool) {
	if gaveUp {
		l.lose()
		l.inflight.Add(-1)
		l.suspect(start)
		return
	}
	l.answered(start)
	l.inflight.Add(-1)
	if l.waiting.Load() != 0 {
		select {
		case l.freed <- struct{}{}:
		default:
		}
	}
}

func (l *lane) lose() {
	until := (clock.Now()/lossStretch + 1) * lossStretch
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := len(l.losses) - 1; i >= 0 && l.losses[i].until >= until {
		l.losses[i].n++
	} else {
		l.losses = append(l.losses, losses{until, 1})
	}
	l.lost.Add(1)
}

// answered notes that a call that began at start has its reply: so have all
// that had given up by then.
func (l *lane) answered(start int64) {
	if l.lost.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := 0
	for ; i < len(l.losses) && l.losses[i].until <= start; i++ {
		l.lost.Add(-l.losses[i].n)
	}
	if l.losses = l.losses[i:]; len(l.losses) == 0 {
		l.losses = nil
	}
}

// settleAll notes that nothing is due any more: the connection is new or gone.
func (l *lane) settleAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.losses = nil
	l.lost.Store(0)
}

// wakeAll lets every waiting call look again.
func (l *lane) wakeAll() {
	for range l.waiting.Load() {
		select {
		case l.freed <- struct{}{}:
		default:
			return
		}
	}
}

// suspect puts the node in doubt when not one byte came while a call waited.
func (l *lane) suspect(start int64) {
	if silence := clock.Now() - start; l.lastRead.Load() < start && silence >= int64(l.node.silence()) {
		l.node.doubt(&Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errSilent})
	}
}

func (l *lane) gotConn(c *conn) {
	l.proof.Store(newPushProof(l.node)) // before anybody can track on the connection
	l.conn.Store(c)
	l.untrack()
	l.untracked.Store(false)
	l.settleAll()
	l.lastRead.Store(clock.Now())
}

// lostConn runs when the lane's connection ended: whatever was due on it is
// settled, and nothing is sent before the connector has looked.
func (l *lane) lostConn(c *conn) {
	if !l.conn.CompareAndSwap(c, nil) {
		return
	}
	l.untrack()
	l.settleAll()
	l.wakeAll()
	l.node.doubt(&Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errRefused})
}

// hangUp ends the lane's connection, if there is one.
func (l *lane) hangUp() {
	if c := l.conn.Load(); c != nil {
		_ = c.Close()
	}
}
