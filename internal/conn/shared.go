package conn

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// Shared is one pipelined connection, which many calls use at once.
type Shared struct {
	endpoint *Endpoint
	Client   rueidis.Client
	conn     atomic.Pointer[conn]

	inflight  atomic.Int32 // calls that wait for a reply
	abandoned atomic.Int32 // calls that gave up, whose replies are still due
	lastRead  atomic.Int64 // when bytes last came

	mu          sync.Mutex
	abandonedAt []abandonedCalls // those of lost, by the time when they gave up

	coalescing coalescing

	waiting atomic.Int32
	freed   chan struct{}

	tracking        atomic.Pointer[Tracking]  // of the connection; nil when it is not on
	trackingRefused atomic.Bool               // the server refuses it on this connection, or never pushes
	proof           atomic.Pointer[pushProof] // of the connection
	trackingSetup   chan struct{}             // one begins it
}

// abandonedCalls are calls that gave up in one stretch of time, which ends at until.
type abandonedCalls struct {
	until int64
	n     int32
}

// abandonedStretch is how finely the times are kept.
const abandonedStretch = int64(16 * time.Millisecond)

// NewShared makes a shared connection that is not open.
func NewShared(ep *Endpoint) *Shared {
	return &Shared{endpoint: ep, freed: make(chan struct{}, sharedSlots), trackingSetup: make(chan struct{}, 1)}
}

// Enter takes a slot; when all are taken it waits for one.
func (s *Shared) Enter(ctx context.Context) *fault.Error {
	if s.inflight.Add(1)+s.abandoned.Load() <= sharedSlots {
		return nil
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	for {
		s.inflight.Add(-1)
		if s.abandoned.Load() > sharedSlots/2 {
			// Perhaps no call is left to prove that the replies came.
			s.endpoint.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrFull})
		}
		select {
		case <-s.freed:
		case <-ctx.Done():
			return &fault.Error{Kind: fault.ContextKind(ctx.Err()), Outcome: fault.OutcomeNotApplied, Err: fault.Waited(ctx.Err(), &fault.Error{Err: fault.ErrFull})}
		}
		if err := s.endpoint.Availability.Wait(ctx); err != nil {
			return err
		}
		if s.inflight.Add(1)+s.abandoned.Load() <= sharedSlots {
			return nil
		}
	}
}

// Do sends one command in a slot that is taken, and gives the slot back.
func (s *Shared) Do(ctx context.Context, cmd rueidis.Completed, asking bool) (res rueidis.RedisResult) {
	if asking {
		return s.DoMulti(ctx, []rueidis.Completed{s.endpoint.Builder.Asking().Build(), cmd})[1]
	}
	start := clock.Now()
	defer func() {
		s.leave(start, ctx.Err() != nil && res.NonRedisError() != nil)
	}()
	return s.Client.Do(ctx, cmd)
}

// DoMulti is Do for a pipeline.
func (s *Shared) DoMulti(ctx context.Context, cmds []rueidis.Completed) (res []rueidis.RedisResult) {
	start := clock.Now()
	defer func() {
		s.leave(start, ctx.Err() != nil && len(res) > 0 && res[len(res)-1].NonRedisError() != nil)
	}()
	return s.Client.DoMulti(ctx, cmds...)
}

// leave gives the slot back. A call that gave up leaves its slot taken until
// the connection proves that the reply has come: replies come in order, so the reply
// to any call that began later is that proof.
func (s *Shared) leave(start int64, gaveUp bool) {
	if gaveUp {
		s.noteAbandoned()
		s.inflight.Add(-1)
		s.checkSilence(start)
		return
	}
	s.NoteReply(start)
	s.inflight.Add(-1)
	if s.waiting.Load() != 0 {
		select {
		case s.freed <- struct{}{}:
		default:
		}
	}
}

func (s *Shared) noteAbandoned() {
	until := (clock.Now()/abandonedStretch + 1) * abandonedStretch
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := len(s.abandonedAt) - 1; i >= 0 && s.abandonedAt[i].until >= until {
		s.abandonedAt[i].n++
	} else {
		s.abandonedAt = append(s.abandonedAt, abandonedCalls{until, 1})
	}
	s.abandoned.Add(1)
}

// NoteReply notes that a call that began at start has its reply: so have all
// that had given up by then.
func (s *Shared) NoteReply(start int64) {
	if s.abandoned.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	for ; i < len(s.abandonedAt) && s.abandonedAt[i].until <= start; i++ {
		s.abandoned.Add(-s.abandonedAt[i].n)
	}
	if s.abandonedAt = s.abandonedAt[i:]; len(s.abandonedAt) == 0 {
		s.abandonedAt = nil
	}
}

// resetAbandoned notes that nothing is due any more: the connection is new or gone.
func (s *Shared) resetAbandoned() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandonedAt = nil
	s.abandoned.Store(0)
}

// WakeWaiting lets every waiting call try again.
func (s *Shared) WakeWaiting() {
	for range s.waiting.Load() {
		select {
		case s.freed <- struct{}{}:
		default:
			return
		}
	}
}

// checkSilence makes the server suspect when not one byte came while a call waited.
func (s *Shared) checkSilence(start int64) {
	if silence := clock.Now() - start; s.lastRead.Load() < start && silence >= int64(s.endpoint.silence()) {
		s.endpoint.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrSilent})
	}
}

func (s *Shared) connected(c *conn) {
	s.proof.Store(newPushProof(s.endpoint)) // before any call can track on the connection
	s.conn.Store(c)
	s.EndTracking()
	s.trackingRefused.Store(false)
	s.resetAbandoned()
	s.lastRead.Store(clock.Now())
}

// disconnected runs when the connection has ended: whatever was due on it is
// settled, and nothing is sent before the prober has connected it again.
func (s *Shared) disconnected(c *conn) {
	if !s.conn.CompareAndSwap(c, nil) {
		return
	}
	s.EndTracking()
	s.resetAbandoned()
	s.WakeWaiting()
	s.endpoint.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrNotOpen})
}

// CloseConn ends the connection, if there is one.
func (s *Shared) CloseConn() {
	if c := s.conn.Load(); c != nil {
		_ = c.Close()
	}
}

// UnderWay is how many calls wait for a reply.
func (s *Shared) UnderWay() int32 { return s.inflight.Load() }

// IsOpen reports whether there is a connection.
func (s *Shared) IsOpen() bool { return s.conn.Load() != nil }

// ReadSince reports whether bytes came at start or later.
func (s *Shared) ReadSince(start int64) bool { return s.lastRead.Load() >= start }
