package httpcache

import (
	"context"
	"crypto/rand"
	_ "embed"
	"net/http"
	"slices"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
)

// Where and for how long the response of a load is stored.

type responseLoad = cache.Load[*storedResponse]

// place returns a response as it is stored, and says to the load for how long.
func (x *exchange) place(ctx context.Context, l *responseLoad, s *storedResponse) *storedResponse {
	why := ""
	switch s, why = x.placed(ctx, l, s); s.kind {
	case kindAgain:
		l.Skip()
	case kindPass:
		s = x.withReserve(l, s)
		ttl, staleTTL := x.v.h.opt.PassTTL, max(0, s.fresh+max(s.swr, s.sie)-x.v.h.opt.PassTTL)
		if !x.admit(ctx, l, ttl+staleTTL) {
			l.Skip()
		}
		l.SetTTL(ttl)
		l.SetStaleTTL(staleTTL)
	default:
		ru := &x.recorder.ruling
		ttl, staleTTL := max(ru.fresh, cachelimit.MinTTL), max(ru.swr, ru.sie)
		switch {
		case s.unstored:
			why = whyVary
		case !x.admit(ctx, l, ttl+staleTTL):
			s.unstored, why = true, whyVariants // placed made it
		case x.v.h.engine.Degraded(l):
			why = whyUnavailable
		}
		if s.unstored {
			l.Skip()
		}
		l.SetTTL(ttl)
		l.SetStaleTTL(staleTTL)
	}
	if why == "" {
		x.v.h.event(ctx, madcrow.EventHTTPCacheStored, "")
	} else {
		x.v.h.event(ctx, madcrow.EventHTTPCacheNotStored, why)
	}
	return s
}

// placed is the response as it is stored, where it is stored. Where it cannot be,
// the next one can: its tags were not known before the handler ran, or it varies by
// more than was known. why says that it is not stored.
func (x *exchange) placed(ctx context.Context, l *responseLoad, made *storedResponse) (_ *storedResponse, why string) {
	if made.kind != kindResponse {
		return made, x.whyNot()
	}
	if instead := x.newTags(ctx, l); instead != nil {
		return instead, whyTags
	}
	s := *made
	s.header = impersonal(made.header)
	if instead := x.placeVariant(ctx, l, &s); instead != nil {
		return instead, whyVary
	}
	return &s, ""
}

// whyNot is why the response is for its client alone.
func (x *exchange) whyNot() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if why := x.recorder.ruling.why; why != "" {
		return why
	}
	return whyStreamed
}

// newTags handles tags that were not known before the handler ran: a removal
// meanwhile was missed. They are noted for the next load, and nothing is stored.
func (x *exchange) newTags(ctx context.Context, l *responseLoad) (instead *storedResponse) {
	given, known := x.recorder.ruling.tags, x.known
	if len(union(known, given)) == len(known) {
		return nil
	}
	x.v.h.taggers.Store(true)
	all := union(given, known)
	if len(all) >= cachelimit.MaxTags {
		all = given
	}
	if !x.note(ctx, l, tagsKey(x.v.url), &storedResponse{kind: kindTags, tags: all}) || x.hinted {
		return passResponse // its tags change all the time: no one shall wait for that
	}
	return againResponse
}

// placeVariant sets which of the variants of its URL a response is.
func (x *exchange) placeVariant(ctx context.Context, l *responseLoad, s *storedResponse) (instead *storedResponse) {
	h, vary := x.v.h, x.recorder.ruling.vary
	s.vary = vary
	old, there := x.old.Value, h.engine.AtLease(l)
	if there == nil || old != nil && there.gen != old.gen {
		old = nil // it was removed while this waited, and its variants with it
	}
	switch {
	case x.at.vary != nil:
		s.vary, s.gen = union(x.at.vary, vary), x.at.gen
		if slices.Sort(s.vary); len(s.vary) > len(x.at.vary) {
			if len(s.vary) > 2*maxVary || !x.note(ctx, l, x.v.key, &storedResponse{kind: kindVary, vary: s.vary, gen: rand.Text()}, x.tags...) {
				return passResponse
			}
			return againResponse
		}
	case len(vary) > 0 && old != nil && len(old.vary) > 0: // other variants stay known
		s.vary, s.gen = union(old.vary, vary), old.gen
		slices.Sort(s.vary)
	case len(vary) > 0:
		s.gen = rand.Text()
	}
	if len(s.vary) > 0 {
		h.codings.learn(s.vary, x.asked, s.header)
		s.variant = h.variantKey(x.v.key, s.gen, s.vary, x.asked)
		// It is not where others would look for it: they have learnt the same.
		s.unstored = x.at.vary != nil && s.variant != x.at.key
	}
	return nil
}

// withReserve adds to a hit-for-pass entry the stale response that was there: a
// refusal, or an answer for one client alone, does not take it away from the
// others. What was removed meanwhile stays removed.
func (x *exchange) withReserve(l *responseLoad, pass *storedResponse) *storedResponse {
	f := x.old
	if f.State != cache.Stale || f.Value == nil || f.Value.kind != kindResponse || x.v.h.engine.Removed(l, f) {
		return pass
	}
	p := *f.Value
	x.mu.Lock()
	if status := x.recorder.status; status == http.StatusNotFound || status == http.StatusGone { // that is of the page, not of a client
		p.swr = 0
	}
	x.mu.Unlock()
	return p.passing(f.Age + time.Since(x.began))
}

// note stores what helps the next load. It holds nothing that could be out of date.
func (x *exchange) note(ctx context.Context, l *responseLoad, key string, s *storedResponse, tags ...string) bool {
	e := x.v.h.engine
	return !e.Degraded(l) && e.Remember(ctx, key, s, max(x.v.h.opt.MaxTTL, time.Hour), tags) == nil
}
