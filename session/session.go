package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Session is the session of one request, or of one identifier. Nothing is asked
// of Redis before a method needs it. It is safe for concurrent use: its methods
// wait for one another, but no longer than their context and
// Config.CommandTimeout allow, after which they are [ErrInUse].
type Session[T any] struct {
	m       *Manager[T]
	failure atomic.Uint32 // a Failure
	device  Device
	carrier carrier // nil: no cookie goes with it
	lost    bool    // there is no middleware around the handler

	turn     chan struct{} // full while somebody uses what follows
	id       ident
	has      bool    // id is set: the caller showed one, or one was made
	olds     []ident // are not used any more, and may be there still
	shown    []ident // of several cookies of the name; it is not known which counts
	rivals   bool    // olds are several that are valid, of which none is believed
	loaded   bool
	exists   bool
	replaced bool // there is another identifier: under this one no session is made
	degraded error
	under    Failure // which allowed that
	rec      record
	now      content[T]

	mu   sync.Mutex
	seen seen
}

// seen is what can be asked for without waiting.
type seen struct {
	id       ident
	has      bool
	degraded error
}

// carrier takes the identifier to the client.
type carrier interface {
	// ready says whether set could do it now.
	ready() error
	set(token string, persist time.Duration) error
	clear() error
	// read says that the answer may depend on the session.
	read()
}

func (m *Manager[T]) newSession(token string) *Session[T] {
	s := &Session[T]{}
	m.begin(s, token)
	return s
}

func (m *Manager[T]) begin(s *Session[T], token string) {
	s.m, s.turn = m, make(chan struct{}, 1)
	s.adopt(token)
}

// Open returns the session of an identifier, "" for none, without a request:
// for a socket, or a program. Token tells the identifier when there is a new
// one.
func (m *Manager[T]) Open(token string) *Session[T] { return m.newSession(token) }

func (s *Session[T]) adopt(token string) {
	if token == "" {
		return
	}
	if s.id, s.has = s.m.identOf(token); !s.has {
		s.m.event("malformed")
	}
	s.seen = seen{id: s.id, has: s.has}
}

func (m *Manager[T]) identOf(token string) (ident, bool) {
	if m.opt.FastAPILayout {
		return legacyIdent(token), validLegacyID(token)
	}
	return parseIdent(token)
}

// enter waits for the session to be free.
func (s *Session[T]) enter(ctx context.Context, op string) error {
	if s.lost {
		return &Error{Op: op, Err: ErrNoMiddleware}
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(s.m.timeout)
	defer timer.Stop()
	why := &madcrow.Error{Op: op, Kind: madcrow.KindTimeout, Outcome: madcrow.OutcomeNotApplied}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-timer.C:
		why.Err = ErrInUse
	case <-ctx.Done():
		why.Err = fmt.Errorf("%w: %w", ErrInUse, ctx.Err())
		if errors.Is(ctx.Err(), context.Canceled) {
			why.Kind = madcrow.KindCanceled
		}
	}
	return &Error{Op: op, Err: why}
}

// leave lets the next one in.
func (s *Session[T]) leave() {
	s.mu.Lock()
	s.seen = seen{id: s.id, has: s.has, degraded: s.degraded}
	s.mu.Unlock()
	<-s.turn
}

func (s *Session[T]) look() seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// Token is the identifier, "" where there is none. One that the client showed
// is not known to be valid before something else was asked, and of several
// cookies of the name none is. It does not wait.
func (s *Session[T]) Token() string {
	if seen := s.look(); seen.has {
		return seen.id.token
	}
	return ""
}

// Handle names this session for [Manager.Revoke] and in [Manager.List]; "" where
// there is none, and with Options.FastAPILayout. Rotate changes it. It does not wait.
func (s *Session[T]) Handle() string {
	if seen := s.look(); seen.has && !s.m.opt.FastAPILayout {
		return seen.id.member
	}
	return ""
}

// Degraded says why the session was not read from Redis, where its [Failure]
// let the request go on all the same; nil otherwise. It does not wait.
func (s *Session[T]) Degraded() error { return s.look().degraded }

// Get returns the data; false where there is no session. The T is the caller's
// own but for what it points to: change it by Update only. The error is an
// [*Error]: the session could not be loaded, which is not the same as none.
func (s *Session[T]) Get(ctx context.Context) (data T, found bool, err error) {
	if err := s.enter(ctx, "load"); err != nil {
		return data, false, err
	}
	defer s.leave()
	if err := s.load(ctx); err != nil {
		return data, false, err
	}
	return s.now.Data, s.exists, nil
}

// User returns who is logged in, "" for nobody. Errors are those of Get.
func (s *Session[T]) User(ctx context.Context) (string, error) {
	if err := s.enter(ctx, "load"); err != nil {
		return "", err
	}
	defer s.leave()
	if err := s.load(ctx); err != nil {
		return "", err
	}
	return s.rec.user, nil
}

// load asks Redis once, and again where what another failure allowed is not
// enough.
func (s *Session[T]) load(ctx context.Context) error {
	failure := Failure(s.failure.Load())
	if s.loaded && (s.degraded == nil || s.under == failure) {
		return nil
	}
	if s.carrier != nil {
		s.carrier.read()
	}
	s.setNone()
	s.loaded, s.degraded = false, nil
	if len(s.shown) > 0 {
		if err := s.choose(ctx); err != nil {
			return s.withoutRedis(err, failure)
		}
	}
	if !s.has {
		s.loaded = true
		return nil
	}
	since := s.m.copies.begin()
	rec, why, err := s.m.fetch(ctx, s.id)
	if err != nil {
		return s.withoutRedis(err, failure)
	}
	if why != "" {
		s.m.copies.lost(s.id)
		s.m.event(why)              // "missing" in numbers is somebody who guesses
		s.setNone()                 // never adopted:
		s.has = false               // the next write makes a new one,
		s.replaced = why == rotated // but where that would take the place of the right one
		return nil
	}
	s.take(ctx, rec)
	s.m.copies.put(s.id, rec, since)
	return nil
}

// none notes that there is no session.
func (s *Session[T]) setNone() {
	s.loaded, s.exists, s.rec, s.now = true, false, record{}, content[T]{}
}

// gone notes that the session has ended.
func (s *Session[T]) setEnded() {
	s.m.copies.drop(s.id)
	s.setNone()
	s.has = false
}

// become makes what was read or stored the session.
func (s *Session[T]) setLoaded(id ident, rec record, c content[T]) {
	s.id, s.has, s.replaced = id, true, false
	s.loaded, s.exists, s.rec, s.now = true, true, rec, c
}

// take makes what was read the session, if it can be read.
func (s *Session[T]) take(ctx context.Context, rec record) {
	c, err := s.m.decode(rec, s.id)
	if err != nil {
		s.m.undecodable(ctx, err)
		s.setNone()
		s.has = false
		s.olds = append(s.olds, s.id)
		return
	}
	s.setLoaded(s.id, rec, c)
}

// withoutRedis does what the failure of the route says.
func (s *Session[T]) withoutRedis(err error, failure Failure) error {
	failed := &Error{Op: "load", Err: err}
	s.loaded = false
	if errors.Is(err, madcrow.ErrCanceled) {
		return failed
	}
	s.m.event("unavailable")
	switch failure {
	case ReadAnonymous:
		s.loaded, s.degraded, s.under = true, failed, failure
		return nil
	case ReadCopy:
		if rec, ok := s.m.copies.get(s.id); ok {
			if c, err := s.m.decode(rec, s.id); err == nil {
				s.setLoaded(s.id, rec, c)
				s.degraded, s.under = failed, failure
				return nil
			}
		}
	}
	return failed
}

// fetch reads a session; why says why there is none.
func (m *Manager[T]) fetch(ctx context.Context, id ident) (rec record, why string, err error) {
	if m.opt.FastAPILayout {
		return m.fetchLegacy(ctx, id)
	}
	if m.hook == nil { // tests see every script
		if rec, ok, err := m.fetchKnown(ctx, id); ok || err != nil {
			return rec, "", err
		}
	}
	asked := m.validity.now()
	list, err := m.read(ctx, scriptLoad, m.keysOf(id).list(), []string{id.member})
	if err != nil {
		return rec, "", err
	}
	rec, what, why, err := readRecord(list)
	switch {
	case err != nil || what != replyRecord:
	case rec.user != "" && m.handles.of(rec.user) != id.handle:
		why = "revoked" // made with another secret: no revocation would find it
	default:
		m.validity.put(id, rec, asked)
	}
	return rec, why, err
}

// writable loads the session for a change.
func (s *Session[T]) writable(ctx context.Context, op string) error {
	if err := s.load(ctx); err != nil {
		return err
	}
	if s.degraded != nil {
		return &Error{Op: op, Err: s.degraded}
	}
	return nil
}

// refused is the error for a script's reason not to change anything.
func (s *Session[T]) refused(op, why string) error {
	if why == frozen || why == rotated {
		return &Error{Op: op, Err: ErrRotated}
	}
	s.setEnded()
	return &Error{Op: op, Err: ErrEnded}
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Err: err}
}

// made says whether a change was made, be it with an error.
func made(err error) bool { return err == nil || errors.Is(err, ErrNotReplicated) }
