package session

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// A browser sends several cookies of one name where they were set for other
// domains or paths: by an earlier version of the program, by a neighbour under
// the same domain, or by somebody who attacks. It does not say which is whose,
// and nothing that this host may set takes the others away for certain. So Redis
// is asked which of them is valid.

const (
	// maxShown bounds how many cookies of the name are asked for, and ended.
	maxShown = 8
	// maxParsed bounds how many are looked at.
	maxParsed = 64
)

var errSeveral = errors.New("several cookies of one name")

// show notes the identifiers of several cookies of the name. A name that begins
// with __Host- can be set for this host alone, so that a second one is no
// browser's: none is believed then, and a logout or a login ends all. Only
// beside a partitioned one there may be one from before.
func (s *Session[T]) show(cookies []*http.Cookie) {
	var shown []ident
	// From the end: a browser sends those of a longer path first, then the older.
	for _, c := range slices.Backward(cookies[max(0, len(cookies)-maxParsed):]) {
		id, ok := s.m.identOf(c.Value)
		if ok && len(shown) < maxShown && !slices.ContainsFunc(shown, func(other ident) bool { return other.token == id.token }) {
			shown = append(shown, id)
		}
	}
	// One that counts and stands here alone came beside one that is no cookie to
	// net/http, which leaves it out: a browser sends it all the same.
	if len(shown) == 0 && len(cookies) < 2 {
		return
	}
	s.m.event("several_cookies")
	if s.m.several.First(errSeveral) {
		s.m.log.Warn("several cookies of the session's name came with one request: one that is valid is used, of two that are none; "+s.m.opt.whyNotHost(), "cookie", s.m.opt.Cookie)
	}
	switch {
	case strings.HasPrefix(s.m.opt.Cookie, "__Host-") && !s.m.opt.Partitioned:
		s.olds = shown
	case len(shown) == 1:
		s.id, s.has = shown[0], true
		s.seen = seen{id: s.id, has: true}
	default:
		s.shown = shown
	}
}

// whyNotHost says what keeps others from setting the cookie.
func (o *Options) whyNotHost() string {
	switch {
	case strings.HasPrefix(o.Cookie, "__Host-"):
		return "no other host or path can set it in a browser"
	case o.InsecureCookie:
		return "another domain or path has set one too: give it a name of its own (Options.Cookie), or use TLS without InsecureCookie, so that it can begin with __Host-"
	}
	return "another domain or path has set one too: let its name begin with __Host- (Options.Cookie)"
}

// choose finds the one that is valid among several, in one pipeline. Where two
// are, somebody else may have put one of them there, an attacker his own: none
// is believed, and the next login, logout or new session ends them all, after
// which the new one alone is valid.
func (s *Session[T]) choose(ctx context.Context) error {
	valid, before, err := s.m.validOf(ctx, s.shown)
	if err != nil {
		return err
	}
	switch {
	case len(valid) == 1:
		s.id, s.has = valid[0], true
	case len(valid) > 1:
		s.m.event("ambiguous")
		s.olds, s.rivals = append(s.olds, valid...), true
	case len(before) > 0: // a late request: it says so, and can read for the grace
		s.id, s.has = before[0], true
	default:
		s.m.event("missing")
	}
	s.shown = nil
	return nil
}

// validOf returns those that are valid, and those that were rotated away. What
// is read next is asked by the script, which alone decides.
func (m *Manager[T]) validOf(ctx context.Context, shown []ident) (valid, before []ident, err error) {
	if m.opt.FastAPILayout {
		res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) (cmds []madcrow.Command) {
			for _, id := range shown {
				cmds = append(cmds, b.Get().Key(m.prefix+id.token).Build())
			}
			return cmds
		})
		for i := range res {
			if err == nil && !res[i].Message.IsNil() {
				valid = append(valid, shown[i])
			}
		}
		return valid, nil, err
	}
	const each = 3 // commands
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) (cmds []madcrow.Command) {
		for _, id := range shown {
			at := m.keysOf(id)
			cmds = append(cmds, b.Hmget().Key(at.session).Field("v", "u", "e", "x").Build(),
				b.Get().Key(at.epoch).Build(), b.Zscore().Key(at.index).Member(id.member).Build())
		}
		return cmds
	})
	if err != nil {
		return nil, nil, err
	}
	for i, id := range shown {
		f, err := res[each*i].Message.ToArray()
		if err != nil || len(f) != 4 {
			return nil, nil, errors.Join(errReply, err)
		}
		epoch, place, user := res[each*i+1].Message, res[each*i+2].Message, text(f[1])
		switch {
		case !f[3].IsNil():
			before = append(before, id)
		case f[0].IsNil():
		case user == "", m.handles.of(user) == id.handle && !epoch.IsNil() && !place.IsNil() && text(epoch) == text(f[2]):
			valid = append(valid, id)
		}
	}
	return valid, before, nil
}

// endRivals ends what was ambiguous, when there is a new session in its place.
// What is left is tried again by the next one, and by a login and a logout.
func (s *Session[T]) endRivals(ctx context.Context) {
	if !s.rivals {
		return
	}
	olds := s.olds
	s.olds, s.rivals = nil, false
	for _, old := range olds {
		if err := s.m.end(ctx, old); !made(err) {
			s.olds = append(s.olds, old)
		}
	}
}
