package session

import (
	"context"
	"log/slog"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Manager makes sessions whose data is a T. It is safe for concurrent use.
// Create it with [New].
type Manager[T any] struct {
	r        *madcrow.Redis
	opt      Options
	store    store
	codec    codec[T]
	fallback *fallbackCopies
	events   events.Source
	log      *slog.Logger

	undecodables   logonce.Reasons // why data could not be decoded
	severalCookies logonce.Reasons // that a request had several cookies of the name
}

// New makes a manager of sessions. T is stored as JSON. The error is a
// [*madcrow.ArgumentError]; New sends no command to Redis.
func New[T any](r *madcrow.Redis, options Options) (*Manager[T], error) {
	opt, err := options.filled(r.Config())
	if err != nil {
		return nil, err
	}
	m := &Manager[T]{r: r, events: events.Of(r, opt.Name), opt: opt, log: opt.Logger, fallback: newFallbackCopies(opt.CopyFor)}
	if m.log == nil {
		m.log = r.Logger()
	}
	if opt.FastAPILayout {
		m.store, m.codec = newLegacyStore(r, opt), legacyCodec[T]{}
		return m, nil
	}
	seal, err := newSeal(opt.Keys)
	if err != nil {
		return nil, fail.Argument("new", opt.Name, "Keys", err.Error())
	}
	m.store, m.codec = newCachedStore(newRedisStore(r, opt)), sealedCodec[T]{seal}
	return m, nil
}

func (m *Manager[T]) event(ctx context.Context, t madcrow.EventType) { m.events.Count(ctx, t) }

// wrap returns err as the error of an operation; nil stays nil.
func (m *Manager[T]) wrap(op string, err error) error { return wrap(op, m.opt.Name, err) }

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
