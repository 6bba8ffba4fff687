package session

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
)

// A browser sends several cookies of one name if they were set for other domains or
// paths: by an earlier version of the program, by a neighbour under the same domain,
// or by an attacker. The request does not show which is which, and this host cannot
// reliably delete the others. So Redis decides which of them is valid.

const (
	// maxShown bounds how many cookies of the name are checked, and ended.
	maxShown = 8
	// maxParsed bounds how many are parsed.
	maxParsed = 64
)

var errSeveral = errors.New("several cookies of one name")

// show notes the identifiers of several cookies of the name. A cookie whose name
// begins with __Host- can be set only by this host, so a browser has one: of several
// none is trusted, and a logout or a login ends all. With Partitioned an older one
// without that attribute may remain beside it.
func (s *Session[T]) show(ctx context.Context, cookies []*http.Cookie) {
	var ids []ident
	// From the end: a browser sends cookies of a longer path first, then older ones.
	for _, c := range slices.Backward(cookies[max(0, len(cookies)-maxParsed):]) {
		id, ok := s.m.store.parseID(c.Value)
		if ok && len(ids) < maxShown && !slices.ContainsFunc(ids, func(other ident) bool { return other.token == id.token }) {
			ids = append(ids, id)
		}
	}
	// net/http drops a malformed cookie of the name: the other one alone is left.
	if len(ids) == 0 && len(cookies) < 2 {
		s.other.unusable = ErrMalformed
		return
	}
	s.m.event(ctx, madcrow.EventSessionSeveralCookies)
	switch {
	case strings.HasPrefix(s.m.opt.Cookie, "__Host-") && !s.m.opt.Partitioned:
		s.other.stale, s.other.unusable = ids, ErrTwoCookies
		s.m.warnTwoCookies(ctx)
	case len(ids) == 0:
		s.other.unusable = ErrMalformed
	case len(ids) == 1:
		s.state.id, s.snapshot.id = ids[0], ids[0]
		s.m.warnSeveralCookies(ctx)
	default:
		s.other.candidates = ids
		s.m.warnSeveralCookies(ctx)
	}
}

// warnSeveralCookies logs once that a request had several cookies of the name.
func (m *Manager[T]) warnSeveralCookies(ctx context.Context) {
	if m.severalCookies.First(errSeveral) {
		m.log.WarnContext(ctx, "a request has several cookies of the session's name: the valid one is used, of two valid ones neither; "+m.opt.severalHint(), "name", m.name, "cookie", m.opt.Cookie)
	}
}

// warnTwoCookies logs, once a minute, that a browser is shut out.
func (m *Manager[T]) warnTwoCookies(ctx context.Context) {
	if n := m.twoCookies.Due(time.Minute); n > 0 {
		m.log.WarnContext(ctx, "requests have several cookies of the session's name, and none is used: these browsers are logged out until a login or a logout ends the sessions of both; "+m.opt.severalHint(), "name", m.name, "cookie", m.opt.Cookie, "requests", n)
	}
}

// severalHint says what prevents other hosts from setting the cookie.
func (o *Options[T]) severalHint() string {
	switch {
	case strings.HasPrefix(o.Cookie, "__Host-"):
		return "a browser accepts this name from no other host or path"
	case o.InsecureCookie:
		return "another domain or path has set one too: choose another name (Options.Cookie), or use TLS without InsecureCookie, so that the name can begin with __Host-"
	}
	return "another domain or path has set one too: choose a name that begins with __Host- (Options.Cookie)"
}

// choose finds the valid identifier among the candidates, in one pipeline. Of
// several valid ones an attacker may have set one: none is used, and the next login,
// logout or new session ends them all.
func (s *Session[T]) choose(ctx context.Context) error {
	if len(s.other.candidates) == 0 {
		return nil
	}
	valid, replaced, err := s.m.store.classify(ctx, s.other.candidates)
	if err != nil {
		return err
	}
	switch {
	case len(valid) == 1:
		s.state.id = valid[0]
	case len(valid) > 1:
		s.other.rivals, s.other.unusable = append(s.other.rivals, valid...), ErrTwoCookies
		s.m.warnTwoCookies(ctx)
	case len(replaced) > 0: // a late request: its load reports that
		s.state.id = replaced[0]
	default:
		s.other.unusable = ErrUnknown
	}
	s.other.candidates = nil
	return nil
}
