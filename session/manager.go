package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Manager makes sessions whose data is a T. It is safe for concurrent use.
// Create it with [New].
type Manager[T any] struct {
	r        *madcrow.Redis
	name     string
	opt      Options[T]
	timeout  time.Duration // Config.CommandTimeout
	store    store
	codec    codec[T]
	fallback *fallbackCopies
	events   events.Source
	log      *slog.Logger

	secret *secretWatch // nil with Options.FastAPILayout

	undecodables   logonce.Reasons // why data could not be decoded
	severalCookies logonce.Reasons // that a request had several cookies of the name
	twoCookies     logonce.Every   // requests with several cookies, none of which is used
}

// New makes a manager of the sessions of that name, such as "web": 1 to 64 letters,
// digits, '-', '_', '.', which are part of the keys. Processes that share sessions
// need the same name and options. The error is a [*madcrow.ArgumentError] with every
// problem; New sends no command to Redis.
func New[T any](r *madcrow.Redis, name string, options Options[T]) (*Manager[T], error) {
	cfg := r.Config()
	opt, err := options.filled(name, cfg)
	if err != nil {
		return nil, err
	}
	m := &Manager[T]{r: r, name: name, events: events.Of(r, name), opt: opt, timeout: cfg.CommandTimeout, log: opt.Logger, fallback: newFallbackCopies(opt.FallbackTTL)}
	if m.log == nil {
		m.log = r.Logger()
	}
	if opt.FastAPILayout {
		m.store, m.codec = newLegacyStore(r, opt.IdleTimeout), legacyCodec[T]{}
		return m, nil
	}
	if opt.Codec != nil && opt.Codec.ID() == jsonID {
		opt.Codec = nil
	}
	m.secret = newSecretWatch(r, name, opt.Secret, max(opt.AbsoluteTimeout, opt.RememberAbsoluteTimeout), m.log)
	seal, err := newSeal(opt.EncryptionKeys)
	if err != nil {
		return nil, fail.Argument("new", name, "Options.EncryptionKeys", err.Error())
	}
	m.store, m.codec = newCachedStore(newRedisStore(r, name, opt.Secret, storeOptions{
		maxPerUser: opt.MaxPerUser, grace: opt.RotationGrace, waitReplicas: opt.WaitReplicas, waitTimeout: opt.WaitTimeout,
	})), sealedCodec[T]{seal, opt.Codec}
	return m, nil
}

// missing reports that a request has no session, and why.
func (m *Manager[T]) missing(ctx context.Context, why error) {
	m.events.Send(ctx, madcrow.Event{Type: madcrow.EventSessionMissing, Reason: reasonOf(why)})
	if why != ErrNoCookie && m.log.Enabled(ctx, slog.LevelDebug) { //nolint:errorlint // the error itself
		m.log.DebugContext(ctx, "a request has no session", "name", m.name, "reason", reasonOf(why))
	}
}

func (m *Manager[T]) event(ctx context.Context, t madcrow.EventType) { m.events.Count(ctx, t) }

// wrap returns err as the error of an operation; nil stays nil.
func (m *Manager[T]) wrap(op string, err error) error { return wrap(op, m.name, err) }

// end ends one session, and the session that it was rotated to.
func (m *Manager[T]) end(ctx context.Context, id ident) error {
	rep, err := m.store.destroy(ctx, id)
	m.dropCopies(id.member, rep)
	return err
}

// dropCopies drops the fallback copies of an ended session and of its successor.
// It is called after the end: a read that begins later sees it.
func (m *Manager[T]) dropCopies(member string, rep reply) {
	m.fallback.drop(ident{member: member})
	if rep.successor != "" {
		m.fallback.drop(ident{member: rep.successor})
	}
}
