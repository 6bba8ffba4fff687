package conn

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// Tracking is one stretch of client-side caching on a connection: it ends with the
// connection, with FLUSHALL, and when the node is no longer the one that serves.
type Tracking struct {
	over         atomic.Bool
	availability *availability.Monitor // of the node
	proof        *pushProof
}

// Valid reports whether invalidations are still received, and the node is not
// known to be away: it may be silent to this process alone. It is false for nil.
func (t *Tracking) Valid() bool {
	return t != nil && !t.over.Load() && (t.availability == nil || t.availability.Load() < availability.Down)
}

// onInvalidation gets from the client what the server pushed: nil is everything,
// and the end of the connection.
func (s *Shared) onInvalidation(keys []rueidis.RedisMessage) {
	if keys == nil {
		s.EndTracking()
		return
	}
	if p := s.proof.Load(); p != nil && !p.proven.Load() {
		p.arrived()
	}
	if s := s.endpoint.Config.Listeners; s != nil {
		s.notify(keys)
	}
}

// EndTracking ends what was tracked on the connection. The next tracked read
// starts again.
func (s *Shared) EndTracking() {
	if t := s.tracking.Swap(nil); t != nil {
		t.over.Store(true)
	}
}

// EnsureTracking returns the tracking of the connection, and starts it where
// needed. It is nil where the server refuses: the reads go on without. proofKey
// makes the key that the proof of the connection writes.
func (s *Shared) EnsureTracking(ctx context.Context, proofKey func() string) *Tracking {
	if t := s.tracking.Load(); t != nil {
		if !t.proof.proven.Load() {
			s.requestProof(t.proof, proofKey)
		}
		return t
	}
	if s.trackingUnavailable() || s.endpoint.ReadOnly.Load() {
		return nil // a node that is no master may fall behind unseen
	}
	select {
	case s.trackingSetup <- struct{}{}:
		defer func() { <-s.trackingSetup }()
	case <-ctx.Done():
		return nil
	}
	if t := s.tracking.Load(); t != nil || s.trackingUnavailable() {
		return t
	}
	c, p := s.conn.Load(), s.proof.Load()
	if c == nil || p == nil || s.Enter(ctx) != nil {
		return nil
	}
	t := &Tracking{availability: s.endpoint.Availability, proof: p}
	err := s.Do(ctx, s.endpoint.Builder.ClientTracking().On().Optin().Build(), false).Error()
	if err != nil {
		if reply, ok := rueidis.IsRedisErr(err); ok {
			if kind, _ := fault.ClassifyReply(reply.Error()); kind != fault.KindPermission && kind != fault.KindServer {
				return nil // for the moment only
			}
			p.again.Store(never)
			s.trackingRefused.Store(true)
			s.endpoint.logNoPushes(fmt.Errorf("it refuses CLIENT TRACKING: %w", err))
		}
		return nil
	}
	s.trackingRefused.Store(false)
	s.tracking.Store(t)
	if s.conn.Load() != c || s.endpoint.ReadOnly.Load() { // it is another connection by now, or no master
		s.EndTracking()
		return nil
	}
	if !p.proven.Load() {
		s.requestProof(p, proofKey)
		p.wait(ctx)
	}
	return t
}

// trackingUnavailable says whether the connection is known to push nothing. Where pushes
// did not arrive that is tried again from time to time.
func (s *Shared) trackingUnavailable() bool {
	if !s.trackingRefused.Load() {
		return false
	}
	p := s.proof.Load()
	return p == nil || clock.Now() < p.again.Load()
}

// IsProven reports whether a push has arrived on the connection.
func (t *Tracking) IsProven() bool { return t.proof.proven.Load() }
