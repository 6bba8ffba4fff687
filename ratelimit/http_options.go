package ratelimit

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/madcrow-go/madcrow/clientip"
)

// MiddlewareOption changes what [Middleware] makes. Options that cannot be used
// make it panic.
type MiddlewareOption func(*middlewareOptions)

type middlewareOptions struct {
	headers    Headers
	cost       func(*http.Request) int64
	costs      func(*http.Request) []int64
	routes     map[string]Limit
	mux        *http.ServeMux
	route      func(*http.Request) string
	preflights bool
	deny       addressList
	allow      addressList
	skip       func(*http.Request) bool
	shadow     bool
	onDecision func(*http.Request, Decision)
	logger     *slog.Logger
}

// WithHeaders chooses the headers, joined with |; 0 is none. Defaults to
// HeadersRateLimit | HeadersRetryAfter.
func WithHeaders(h Headers) MiddlewareOption { return func(o *middlewareOptions) { o.headers = h } }

// WithCost says what a request costs, in every limit of a group; defaults to 1.
// 0 passes uncounted. A negative cost is answered with 500: with a function of
// Request.ContentLength mind the -1 of a body of unknown length.
func WithCost(f func(*http.Request) int64) MiddlewareOption {
	return func(o *middlewareOptions) { o.cost = f }
}

// WithCosts says what a request costs in each limit of a [Group], in the order
// of [Join]. 0 leaves that limit out, all 0 passes uncounted. Another number of
// costs than limits, or a negative one, is answered with 500.
func WithCosts(f func(*http.Request) []int64) MiddlewareOption {
	return func(o *middlewareOptions) { o.costs = f }
}

// PerRoute gives routes limits of their own instead of the middleware's, by the
// pattern as it was registered: "POST /login". A key without a method, "/login",
// is for those of its methods that have no key of their own; HEAD is a GET, as it
// is for routers. All other requests keep the middleware's limit.
//
// A router knows the pattern of a request only after it has matched it. So
// either the middleware stands inside, around the handlers that are registered
// (With and Group of chi, not Use), or [WithMux] or [WithRoute] names the
// router. Where neither is so, the routes would silently have no limit of their
// own: the answer is then 500 LIMIT_MISPLACED. The same is the answer to a
// request that a key is for by its path, where the pattern says only the
// beginning ("/api/*", "/", or none), as it does outside of a router that is
// mounted: the route inside is not known, or not registered as the key has it.
// That includes a key without a method, "/login", whose route has one, "POST
// /login", beside a "/" that is registered for all: write the method there. What
// WithMux or WithRoute knows to have no route, a 404 or 405, has the middleware's
// limit.
func PerRoute(limits map[string]Limit) MiddlewareOption {
	return func(o *middlewareOptions) {
		if o.routes == nil {
			o.routes = make(map[string]Limit, len(limits))
		}
		for pattern, limit := range limits {
			o.routes[pattern] = limit
		}
	}
}

// WithMux looks patterns up in mux, for a middleware that stands outside it:
// Middleware(limit, key, WithMux(mux))(mux). It must see the same path as the
// middleware: no http.StripPrefix in between. Each request is then matched
// twice.
func WithMux(mux *http.ServeMux) MiddlewareOption { return func(o *middlewareOptions) { o.mux = mux } }

// WithRoute says which route a request is for, for a middleware that stands
// outside of a router which is not an [http.ServeMux]: the pattern, with or
// without its method, or "" where there is none. With chi:
//
//	ratelimit.WithRoute(func(r *http.Request) string {
//		return router.Find(chi.NewRouteContext(), r.Method, r.URL.Path)
//	})
func WithRoute(f func(*http.Request) string) MiddlewareOption {
	return func(o *middlewareOptions) { o.route = f }
}

// WithPreflights counts the preflights of CORS as other requests. Without it they
// pass uncounted, whoever sends them: a browser asks by itself and without what a
// client is known by, so a refusal would be of a request that nobody made. What
// passes so is an OPTIONS with Origin and Access-Control-Request-Method, and
// without a body, a Cookie, Authorization and X-HTTP-Method-Override and its like,
// which no browser sends with one. [WithDeny] refuses them, too.
//
// Set it where a handler does its work for OPTIONS, too: one that is registered
// without a method ("/login") and does not look at it is otherwise without a limit
// for whoever sends these headers.
func WithPreflights() MiddlewareOption { return func(o *middlewareOptions) { o.preflights = true } }

// WithDeny answers clients whose address lies in one of the ranges with 403
// CLIENT_DENIED; nothing is counted. With ranges given, a client whose address p
// cannot tell is answered with 400 CLIENT_UNKNOWN. No ranges deny nobody.
// [clientip.ParseRanges] reads them from text. A later WithDeny replaces an
// earlier one.
func WithDeny(p clientip.Policy, ranges ...netip.Prefix) MiddlewareOption {
	return func(o *middlewareOptions) { o.deny = newAddressList("WithDeny", p, ranges) }
}

// WithAllow lets clients whose address lies in one of the ranges pass
// uncounted, unless [WithDeny] names them too. A client whose address p cannot
// tell is not among them.
func WithAllow(p clientip.Policy, ranges ...netip.Prefix) MiddlewareOption {
	return func(o *middlewareOptions) { o.allow = newAddressList("WithAllow", p, ranges) }
}

// WithSkip lets the requests for which f is true pass uncounted, before the
// lists are looked at: health checks, which may come without an address.
func WithSkip(f func(*http.Request) bool) MiddlewareOption {
	return func(o *middlewareOptions) { o.skip = f }
}

// WithShadow counts and decides, and refuses nothing: to try a limit out. What
// would have been refused, by the limit or by WithDeny, is the recorder's event
// "shadow_denied", and a decision with Allowed false for [WithOnDecision] and
// [FromContext]. A request without a key and one that could not be decided pass
// too. There is never a Retry-After; RateLimit headers are sent as otherwise
// (see [WithHeaders]).
func WithShadow() MiddlewareOption { return func(o *middlewareOptions) { o.shadow = true } }

// WithOnDecision calls f with every decision, before the request goes on or is
// refused. A limit that could not be decided under FailClosed is a decision
// with Degraded and Err, and not Allowed. f must be safe for concurrent use.
func WithOnDecision(f func(*http.Request, Decision)) MiddlewareOption {
	return func(o *middlewareOptions) { o.onDecision = f }
}

// WithLogger names the log of refused requests: denials as information, limits
// that could not be decided as errors. Defaults to none.
func WithLogger(l *slog.Logger) MiddlewareOption { return func(o *middlewareOptions) { o.logger = l } }

// addressList is a policy and the ranges that it is asked for.
type addressList struct {
	policy clientip.Policy
	ranges []netip.Prefix
}

func newAddressList(where string, p clientip.Policy, ranges []netip.Prefix) addressList {
	if !p.IsValid() {
		misuse(where + " needs a clientip.Policy that was made by a constructor")
	}
	list := addressList{policy: p}
	for _, r := range ranges {
		switch {
		case !r.IsValid():
			misuse(where + " was given the invalid netip.Prefix")
		case r != r.Masked():
			misuse(where + ": the range " + strconv.Quote(r.String()) + " has bits behind its length")
		case r.Addr().Is4In6() && r.Bits() >= 96:
			// Addresses are compared unmapped.
			r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-96)
		}
		if r.Bits() == 0 {
			misuse(where + ": the range " + strconv.Quote(r.String()) + " holds every address")
		}
		list.ranges = append(list.ranges, r)
	}
	return list
}

// has says whether the client is on the list.
func (l addressList) has(r *http.Request) (bool, error) {
	if len(l.ranges) == 0 {
		return false, nil
	}
	a, err := l.policy.Addr(r)
	if err != nil {
		return false, unknownClient{err}
	}
	for _, p := range l.ranges {
		if p.Contains(a) {
			return true, nil
		}
	}
	return false, nil
}
