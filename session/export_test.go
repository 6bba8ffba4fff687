package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// Hook is called before each operation of a manager's store, with its name
// ("load", "commit", …). An error is the result of the operation.
type Hook func(op string) error

// SetHook is for tests of what happens between two operations.
func (m *Manager[T]) SetHook(hook Hook) {
	if h, ok := m.store.(*hookedStore); ok {
		h.hook = hook
		return
	}
	m.store = &hookedStore{m.store, hook}
}

// hookedStore calls a hook before the operations that change or load a session.
type hookedStore struct {
	store
	hook Hook
}

func (h *hookedStore) load(ctx context.Context, id ident) (reply, error) {
	if err := h.hook("load"); err != nil {
		return reply{}, err
	}
	return h.store.load(ctx, id)
}

func (h *hookedStore) create(ctx context.Context, s newSession) ([]string, error) {
	if err := h.hook("create"); err != nil {
		return nil, err
	}
	return h.store.create(ctx, s)
}

func (h *hookedStore) commit(ctx context.Context, id ident, version, data string) (reply, error) {
	if err := h.hook("commit"); err != nil {
		return reply{}, err
	}
	return h.store.commit(ctx, id, version, data)
}

func (h *hookedStore) rotate(ctx context.Context, from, to ident, version, data string) (reply, error) {
	if err := h.hook("rotate"); err != nil {
		return reply{}, err
	}
	return h.store.rotate(ctx, from, to, version, data)
}

func (h *hookedStore) destroy(ctx context.Context, id ident) (reply, error) {
	if err := h.hook("destroy"); err != nil {
		return reply{}, err
	}
	return h.store.destroy(ctx, id)
}

func (h *hookedStore) supersede(ctx context.Context, id ident, version string) (reply, error) {
	if err := h.hook("destroy"); err != nil {
		return reply{}, err
	}
	return h.store.supersede(ctx, id, version)
}

func (h *hookedStore) revoke(ctx context.Context, user, handle string) (reply, error) {
	if err := h.hook("destroy"); err != nil {
		return reply{}, err
	}
	return h.store.revoke(ctx, user, handle)
}

func (h *hookedStore) revokeAll(ctx context.Context, user string) (reply, error) {
	if err := h.hook("revoke"); err != nil {
		return reply{}, err
	}
	return h.store.revokeAll(ctx, user)
}

func (h *hookedStore) revokeOthers(ctx context.Context, id ident) (reply, error) {
	if err := h.hook("revoke"); err != nil {
		return reply{}, err
	}
	return h.store.revokeOthers(ctx, id)
}

func (h *hookedStore) list(ctx context.Context, user string) ([]Info, error) {
	if err := h.hook("list"); err != nil {
		return nil, err
	}
	return h.store.list(ctx, user)
}

func (h *hookedStore) inspect(ctx context.Context, user, handle string) (Details, string, bool, error) {
	if err := h.hook("list"); err != nil {
		return Details{}, "", false, err
	}
	return h.store.inspect(ctx, user, handle)
}

// cached returns the manager's store without a hook.
func (m *Manager[T]) cached() *cachedStore {
	st := m.store
	if h, ok := st.(*hookedStore); ok {
		st = h.store
	}
	c, _ := st.(*cachedStore)
	return c
}

// SetClock has the scripts of a manager, and its validity cache, read this clock,
// in microseconds. Only the expression that reads the clock differs. Keys still
// expire by the server's clock.
func (m *Manager[T]) SetClock(micro func() int64) {
	const clock = "redis.call('TIME')"
	if strings.Count(luaClock, clock) != 1 {
		panic("session: the clock must be read in exactly one place")
	}
	st := m.cached()
	key := st.prefix + "clock of a test"
	st.scripts = newScripts(strings.Replace(luaClock, clock, "redis.call('HMGET', '"+key+"', 's', 'u')", 1))
	start := micro()
	st.now = func() int64 { return (micro() - start) * 1000 }
	m.SetHook(func(string) error {
		now := micro()
		err := m.r.Do(context.Background(), m.r.B().Hset().Key(key).FieldValue().FieldValue("s", fmt.Sprint(now/1e6)).FieldValue("u", fmt.Sprint(now%1e6)).Build()).Err()
		return err
	})
}

// BreakReply has a change reply what cannot be read, after it was made.
func (m *Manager[T]) BreakReply(reply string) {
	scripts := *m.cached().scripts
	source := luaClock + luaBegin + "local function run() " + luaCommit + " end\nrun()\nreturn " + reply
	scripts.commit = script{madcrow.NewScript("session_broken", source), source, true}
	m.cached().scripts = &scripts
}

// CompareSecretSoon has the next login compare the Secrets.
func (m *Manager[T]) CompareSecretSoon() {
	m.secret.due.Store(0)
	m.secret.putDue.Store(0)
}

// KeysOf returns the keys of a session: itself, the epoch and the index of its
// user.
func (m *Manager[T]) KeysOf(token string) (session, epoch, index string) {
	id, _ := parseIdent(token)
	at := m.cached().keysOf(id)
	return at.session, at.epoch, at.index
}

// TagOf is the slot tag of a user.
func TagOf(secret []byte, user string) [tagSize]byte {
	h := newHandles(secret).of(user)
	return [tagSize]byte(h[:tagSize])
}

// ParseIdent is for fuzzing: the identifier, encoded again.
func ParseIdent(token string) (again, member string, ok bool) {
	id, ok := parseIdent(token)
	return id.token, id.member, ok
}

// Failed is err as an operation of a manager returns it.
func Failed(err error) error { return wrap("load", "web", err) }

// DisableValidityCache has every load run the script.
func (m *Manager[T]) DisableValidityCache() { m.store = m.cached().redisStore }
