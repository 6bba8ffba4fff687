package conn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

const (
	// pushWithin is how long the push of a proof may take.
	pushWithin = time.Second
	// proofWait is the longest that the read that begins tracking waits for it.
	proofWait = 200 * time.Millisecond
	// proofSoon and proofLater are the times from a proof that could not be
	// made, or that failed, to the next.
	proofSoon  = time.Second
	proofLater = time.Minute
	// proofLife is the lifetime of the key that it writes.
	proofLife = 5 * time.Second
)

// pushProof says whether the pushes of one connection arrive. A server may
// accept CLIENT TRACKING and never push: over RESP2, or behind a proxy. So when
// tracking begins, a key is read under it and changed over another connection.
// Until a push has come, of that key or of any other, no copy is believed to be
// kept true.
type pushProof struct {
	endpoint *Endpoint
	proven   atomic.Bool
	pushed   chan struct{} // closed when it is proven
	tried    chan struct{} // closed after the first try
	once     [2]sync.Once
	again    atomic.Int64 // when to try again
}

func newPushProof(ep *Endpoint) *pushProof {
	return &pushProof{endpoint: ep, pushed: make(chan struct{}), tried: make(chan struct{})}
}

// arrived notes that a push came.
func (p *pushProof) arrived() {
	p.proven.Store(true)
	p.once[0].Do(func() { close(p.pushed) })
	if p.endpoint.noPushes.CompareAndSwap(true, false) {
		p.endpoint.Config.Log.Info("redis tells of changes: near copies are kept true", "address", p.endpoint.Addr())
	}
}

func (p *pushProof) triedOnce() { p.once[1].Do(func() { close(p.tried) }) }

// wait waits for the first try, for a part of the time that the caller has.
func (p *pushProof) wait(ctx context.Context) {
	most := proofWait
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/4)
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-p.pushed:
	case <-p.tried:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// logNoPushes says, once for a node, that copies are not kept true.
func (ep *Endpoint) logNoPushes(why error) {
	if ep.noPushes.CompareAndSwap(false, true) && !ep.Config.Embedded {
		ep.Config.Log.Warn("redis does not tell of changes: near copies are believed for a short time only (NearTTL)", "address", ep.Addr(), "reason", why)
	}
}

// proofRequest asks the prober for a proof.
type proofRequest struct {
	shared *Shared
	proof  *pushProof
	key    string
}

// requestProof has the prober prove the connection, if it is time to.
func (s *Shared) requestProof(p *pushProof, key func() string) {
	now, at := clock.Now(), p.again.Load()
	if now < at || !p.again.CompareAndSwap(at, now+int64(2*pushWithin+proofSoon)) {
		return
	}
	select {
	case s.endpoint.Proofs <- proofRequest{s, p, key()}:
	default: // others are waiting already
	}
}

// prove reads a key under tracking, changes it over another connection, and
// waits for the push. A server that cannot be asked, say for want of rights or
// of memory, proves nothing: reads go on under tracking, and the first push of
// any of them is the proof.
func (s *Shared) prove(ctx context.Context, r proofRequest) {
	ctx, cancel := context.WithTimeout(ctx, 2*pushWithin)
	defer cancel()
	defer r.proof.triedOnce()
	ep, p := s.endpoint, r.proof
	if r.key == "" {
		return // the node has none of our keys
	}
	t := s.tracking.Load()
	if err := s.changeTracked(ctx, r.key); err != nil {
		p.again.Store(clock.Now() + int64(proofSoon))
		if reply, ok := rueidis.IsRedisErr(err); ok {
			if kind, _ := fault.ClassifyReply(reply.Error()); kind == fault.KindPermission || kind == fault.KindServer {
				p.again.Store(clock.Now() + int64(proofLater))
				ep.logNoPushes(fmt.Errorf("whether pushes arrive cannot be tried; grant the user GET and SET of the keys %sm1:tracking:*: %w", ep.Config.KeyPrefix, err))
			}
		}
		return
	}
	timer := time.NewTimer(pushWithin)
	defer timer.Stop()
	select {
	case <-p.pushed:
		return
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	if s.proof.Load() != p || p.proven.Load() {
		return // another connection by now
	}
	if t == nil || s.tracking.Load() != t {
		p.again.Store(clock.Now() + int64(proofSoon))
		return // FLUSHALL came between: the server had forgotten that it was asked
	}
	p.again.Store(clock.Now() + int64(proofLater))
	s.trackingRefused.Store(true)
	s.EndTracking()
	ep.logNoPushes(errNoPushes)
}

var errNoPushes = errors.New("it accepts CLIENT TRACKING, but its pushes do not arrive: RESP3 is switched off, or a proxy drops them")

// changeTracked reads the key under tracking and writes it over another connection.
func (s *Shared) changeTracked(ctx context.Context, key string) error {
	ep := s.endpoint
	c, e := ep.Dedicated.Acquire(ctx) // first: opening it may take a while
	if e != nil {
		return e
	}
	defer c.Release()
	if e := s.Enter(ctx); e != nil {
		return e
	}
	for _, res := range s.DoMulti(ctx, []rueidis.Completed{ep.Builder.ClientCaching().Yes().Build(), ep.Builder.Get().Key(key).Build()}) {
		if err := res.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
	}
	res := c.Do(ctx, ep.Builder.Set().Key(key).Value("1").Px(proofLife).Build())[0]
	c.Dirty = c.Dirty || c.idleSince.IsZero() // it was opened for this alone
	return res.Error()
}

// never is a time that does not come.
const never = math.MaxInt64

// Prove makes the proof.
func (r proofRequest) Prove(ctx context.Context) { r.shared.prove(ctx, r) }
