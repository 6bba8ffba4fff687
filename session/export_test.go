package session

import (
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// Hook is called before each script of a manager, with its name. It may do
// something in between, or return another script to run instead.
type Hook func(name string) *madcrow.Script

// SetHook is for tests of what happens between two scripts.
func (m *Manager[T]) SetHook(hook Hook) {
	m.hook = func(s script, args []string) (script, []string) {
		if other := hook(s.Name()); other != nil {
			return script{Script: other}, args
		}
		return s, args
	}
}

// SetClock has the scripts of a manager read this clock, in microseconds, and
// not that of the server. Only that one expression differs. Keys still expire
// by the server's clock.
func (m *Manager[T]) SetClock(micro func() int64) {
	m.hook = func(s script, args []string) (script, []string) {
		const clock = "redis.call('TIME')"
		if strings.Count(s.source, clock) != 1 {
			panic("session: " + s.Name() + " must read the clock in exactly one place")
		}
		now := micro()
		source := strings.Replace(s.source, clock, "{ARGV[#ARGV - 1], ARGV[#ARGV]}", 1)
		args = append(append([]string{}, args...), strconv.FormatInt(now/1e6, 10), strconv.FormatInt(now%1e6, 10))
		return script{Script: madcrow.NewScript(s.Name()+"_test", source), source: source}, args
	}
}

// KeysOf returns the keys of a session: itself, the epoch and the index of its
// user.
func (m *Manager[T]) KeysOf(token string) (session, epoch, index string) {
	id, _ := parseIdent(token)
	at := keysOf(m.prefix, id.handle, id.member)
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
