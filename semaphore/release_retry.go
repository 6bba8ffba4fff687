package semaphore

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/pending"
)

// maxReleases bounds the leases that wait to be released.
const maxReleases = 10_000

// unreleased is a lease that Redis may hold and that no one has: of an Acquire
// whose outcome is unknown, or of a Release that failed.
type unreleased struct {
	key, id string
	until   int64 // it has ended by then; time of package clock
	// maybeInFlight: the outcome of Acquire is unknown. It is released twice, so
	// that an Acquire that arrives late is undone.
	maybeInFlight bool
}

// newReleases returns the queue of leases that are released when Redis is
// available.
func newReleases(s *Semaphore) *pending.Queue[*unreleased] {
	return pending.NewQueue(s.r, pending.QueueOptions[*unreleased]{
		RunnerOptions: pending.RunnerOptions{Writable: true, Backoff: clock.Backoff{First: time.Second / 16, Most: time.Second}},
		MaxItems:      maxReleases, MaxBatch: 256,
		Send: s.releaseAll,
	})
}

func (s *Semaphore) releaseLater(l *Lease, maybeInFlight bool) {
	// Beyond the bound, or after Close, its TTL ends it.
	_ = s.releases.Add(&unreleased{l.key, l.id, clock.Now() + int64(s.opt.LeaseTTL), maybeInFlight})
}

// releaseAll returns the leases that must be released again: those after the
// first failure, and those that may still be on their way.
func (s *Semaphore) releaseAll(ctx context.Context, batch []*unreleased) (again []*unreleased) {
	for i, u := range batch {
		if clock.Now() > u.until {
			continue
		}
		reply, err := s.update(ctx, limitscript.LeaseRelease, u.key, u.id)
		if err != nil {
			return append(again, batch[i:]...)
		}
		if reply.Retry == 1 {
			s.waiting.released(u.key)
		}
		if reply.Retry == 0 && u.maybeInFlight {
			u.maybeInFlight = false
			again = append(again, u)
		}
	}
	return again
}
