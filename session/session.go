package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Session is the session of one request, or of one identifier. It is loaded when
// a method first needs it. It is safe for concurrent use: its methods run one at
// a time. One that waits longer than its context or Config.CommandTimeout allows
// returns [ErrInUse].
type Session[T any] struct {
	m       *Manager[T]
	failure atomic.Uint32 // the failure of the innermost middleware
	device  Device
	cookie  cookieWriter // nil outside of a request

	lock  chan struct{} // full while a method runs; nil outside of Middleware
	state state[T]      // guarded by lock
	other otherIDs      // guarded by lock

	mu       sync.Mutex
	snapshot snapshot // of state, for methods that do not wait
}

// phase is what is known of a session.
type phase uint8

const (
	phaseUnloaded phase = iota // Redis decides at the next use
	phaseNone                  // there is none; the first write creates one
	phaseReplaced              // the identifier was replaced: no session may start under it
	phaseActive                // rec and content are the session
)

// state is the session as this object knows it.
type state[T any] struct {
	phase   phase
	id      ident // zero without an identifier
	rec     record
	content content[T]
	why     error   // why there is no session
	cause   error   // why Redis could not be asked, if the failure allowed the read anyway
	under   failure // that failure
}

// otherIDs are identifiers beside state.id.
type otherIDs struct {
	candidates []ident // of several cookies of the name; the load chooses
	rivals     []ident // several valid ones: none is used; the next create, login or logout ends them
	stale      []ident // unusable ones: the next login or logout ends them
	unusable   error   // why the request has no identifier; nil for no cookie
}

// snapshot is the part of state that can be read without waiting.
type snapshot struct {
	id    ident
	why   error
	cause error
}

// cookieWriter sends the identifier to the client.
type cookieWriter interface {
	// ready returns ErrHeadersSent if set would fail now.
	ready() error
	set(token string, persist time.Duration) error
	expire() error
	// markRead notes that the response may depend on the session.
	markRead()
}

// Open returns the session of an identifier, "" for none, without a request:
// for a socket, or a program. Token returns the identifier after a change.
func (m *Manager[T]) Open(token string) *Session[T] {
	s := &Session[T]{}
	m.open(s, token)
	return s
}

func (m *Manager[T]) open(s *Session[T], token string) {
	s.m, s.lock = m, make(chan struct{}, 1)
	if token == "" {
		return
	}
	id, ok := m.store.parseID(token)
	if !ok {
		s.other.unusable = ErrMalformed
		return
	}
	s.state.id, s.snapshot.id = id, id
}

// do runs fn with the session locked and loaded, and returns its error as that of op.
func (s *Session[T]) do(ctx context.Context, op string, fn func() error) error {
	if err := s.acquire(ctx); err != nil {
		return s.m.wrap(op, err)
	}
	defer s.release()
	if err := s.load(ctx); err != nil {
		return s.m.wrap("load", err)
	}
	return s.m.wrap(op, fn())
}

// change is do for an operation that writes: a session that was read without
// Redis cannot be written.
func (s *Session[T]) change(ctx context.Context, op string, fn func() error) error {
	return s.do(ctx, op, func() error {
		if s.state.cause != nil {
			return s.state.cause
		}
		return fn()
	})
}

// acquire waits for the running method.
func (s *Session[T]) acquire(ctx context.Context) error {
	if s.lock == nil {
		return ErrNoMiddleware
	}
	select {
	case s.lock <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(s.m.timeout)
	defer timer.Stop()
	busy := &madcrow.Error{Op: "wait", Kind: madcrow.KindTimeout, Outcome: madcrow.OutcomeNotApplied}
	select {
	case s.lock <- struct{}{}:
		return nil
	case <-timer.C:
		busy.Err = ErrInUse
	case <-ctx.Done():
		busy.Err = fmt.Errorf("%w: %w", ErrInUse, ctx.Err())
		if errors.Is(ctx.Err(), context.Canceled) {
			busy.Kind = madcrow.KindCanceled
		}
	}
	return busy
}

func (s *Session[T]) release() {
	s.mu.Lock()
	s.snapshot = snapshot{id: s.state.id, why: cmp.Or(s.state.why, s.noRedis()), cause: s.state.cause}
	s.mu.Unlock()
	<-s.lock
}

func (s *Session[T]) latest() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Token returns the identifier, "" if there is none. Before the first load it is
// the client's, which may be invalid; of several cookies of the name it is "". It
// does not wait.
func (s *Session[T]) Token() string { return s.latest().id.token }

// Handle names this session for [Manager.Revoke] and in [Manager.List]; "" if
// there is none, and with Options.FastAPILayout. Rotate changes it. It does not
// wait.
func (s *Session[T]) Handle() string {
	if id := s.latest().id; id != (ident{}) {
		return s.m.store.handle(id)
	}
	return ""
}

// Degraded returns why the session was read without Redis, where the policy of the
// [Manager.Middleware] allowed that; nil otherwise. It does not wait.
func (s *Session[T]) Degraded() error { return s.latest().cause }

// Get returns the data; false if there is no session. The T is a shallow copy:
// change the data only with Update. The error is a [*madcrow.Error]: whether there
// is a session is unknown then.
func (s *Session[T]) Get(ctx context.Context) (data T, found bool, err error) {
	err = s.do(ctx, "load", func() error {
		data, found = s.state.content.Data, s.state.phase == phaseActive
		return nil
	})
	return data, found, err
}

// User returns the user who is logged in, or "". It returns the errors of Get.
func (s *Session[T]) User(ctx context.Context) (user string, err error) {
	err = s.do(ctx, "load", func() error {
		user = s.state.rec.user
		return nil
	})
	return user, err
}

// load asks Redis if that was not done yet. A state that one failure allowed is not
// enough for another one.
func (s *Session[T]) load(ctx context.Context) error {
	under := failure(s.failure.Load())
	if s.state.phase != phaseUnloaded && (s.state.cause == nil || s.state.under == under) {
		return nil
	}
	if s.cookie != nil {
		s.cookie.markRead()
	}
	s.state = state[T]{id: s.state.id}
	if err := s.choose(ctx); err != nil {
		return s.loadFallback(ctx, err, under)
	}
	if s.state.id == (ident{}) {
		s.setNone(cmp.Or(s.other.unusable, ErrNoCookie))
		s.m.missing(ctx, s.state.why)
		return nil
	}
	since := s.m.fallback.begin()
	rep, err := s.m.store.load(ctx, s.state.id)
	switch {
	case err != nil:
		return s.loadFallback(ctx, err, under)
	case rep.status == statusNone:
		s.m.fallback.lost(s.state.id)
		s.setNone(rep.reason.why())   // an unknown identifier is never adopted
		s.m.missing(ctx, s.state.why) // many ErrUnknown may be guesses
		switch rep.reason {
		case reasonRotated:
			s.state.phase = phaseReplaced
		case reasonOtherSecret:
			s.m.secret.compare(ctx, false)
		}
		return nil
	}
	id := s.state.id
	if s.setRecord(ctx, rep.rec); s.state.phase == phaseActive {
		s.m.event(ctx, madcrow.EventSessionRead)
	}
	s.m.fallback.put(id, rep.rec, since)
	return nil
}

// loadFallback serves the read as the failure of its middleware allows.
func (s *Session[T]) loadFallback(ctx context.Context, err error, under failure) error {
	err = s.m.wrap("load", err)
	if errors.Is(err, madcrow.ErrCanceled) {
		return err
	}
	s.m.events.Send(ctx, madcrow.Event{Type: madcrow.EventSessionUnavailable, Err: err})
	switch under {
	case failOpen:
		s.state.phase, s.state.cause, s.state.under = phaseNone, err, under
		return nil
	case failStale:
		rec, ok := s.m.fallback.get(s.state.id)
		if !ok {
			break
		}
		c, bad := s.m.codec.decode(rec.data, rec.user, s.state.id)
		if bad != nil {
			break
		}
		s.setActive(s.state.id, rec, c)
		s.state.cause, s.state.under = err, under
		return nil
	}
	return err
}

// noRedis returns why a read found no session without Redis, if the failure allowed that.
func (s *Session[T]) noRedis() error {
	if s.state.phase == phaseNone {
		return s.state.cause
	}
	return nil
}

// setNone notes that there is no session, and why, and drops the identifier.
func (s *Session[T]) setNone(why error) { s.state = state[T]{phase: phaseNone, why: why} }

// setEnded notes that the session has ended.
func (s *Session[T]) setEnded() {
	s.m.fallback.drop(s.state.id)
	s.setNone(ErrEnded)
}

// setActive notes a session that was read or stored.
func (s *Session[T]) setActive(id ident, rec record, c content[T]) {
	s.state = state[T]{phase: phaseActive, id: id, rec: rec, content: c}
}

// setUnloaded has the next use load the session: a change may have been made.
func (s *Session[T]) setUnloaded() { s.state.phase = phaseUnloaded }

// setRecord notes a session that was read. One that cannot be decoded is stale,
// and there is none.
func (s *Session[T]) setRecord(ctx context.Context, rec record) {
	id := s.state.id
	c, err := s.m.codec.decode(rec.data, rec.user, id)
	if err != nil {
		s.m.undecodable(ctx, err)
		s.other.stale = append(s.other.stale, id)
		s.setNone(ErrUndecodable)
		return
	}
	s.setActive(id, rec, c)
}

// refused takes over what the store replied in the place of a change. A nil error is
// a conflict: the state is then the newer one.
func (s *Session[T]) refused(ctx context.Context, rep reply) (bool, error) {
	switch rep.status {
	case statusNone:
		return true, s.notChanged(rep.reason)
	case statusRecord:
		if s.setRecord(ctx, rep.rec); s.state.phase != phaseActive {
			return true, ErrEnded
		}
		return true, nil
	}
	return false, nil
}

// notChanged returns the error of a change that the store refused for a reason.
func (s *Session[T]) notChanged(why reason) error {
	if why == reasonFrozen || why == reasonRotated {
		return ErrRotated
	}
	s.setEnded()
	s.state.why = why.why()
	return because(ErrEnded, s.state.why)
}

func (m *Manager[T]) undecodable(ctx context.Context, err error) {
	m.missing(ctx, ErrUndecodable)
	if m.opt.OnUndecodable != nil {
		m.opt.OnUndecodable(ctx, err)
		return
	}
	if m.undecodables.First(err) { // one reason may concern all sessions
		m.log.WarnContext(ctx, "session data cannot be decoded; the session counts as missing", "reason", err)
	}
}
