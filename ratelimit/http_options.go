package ratelimit

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/madcrow-go/madcrow/clientip"
)

// MiddlewareOption changes a [Middleware], which panics if an option cannot be
// used.
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

// WithCost sets the cost of a request, in every limit of a group; defaults to 1.
// A request of cost 0 passes uncounted. A negative cost is answered with 500:
// Request.ContentLength is -1 for a body of unknown length.
func WithCost(f func(*http.Request) int64) MiddlewareOption {
	return func(o *middlewareOptions) { o.cost = f }
}

// WithCosts sets the cost of a request in each limit of a [Group], in the order
// of [Join]. 0 leaves that limit out; a request whose costs are all 0 passes
// uncounted. A wrong number of costs, or a negative cost, is answered with 500.
func WithCosts(f func(*http.Request) []int64) MiddlewareOption {
	return func(o *middlewareOptions) { o.costs = f }
}

// PerRoute gives routes limits of their own instead of the middleware's, by the
// pattern as it was registered: "POST /login". A key without a method, "/login",
// is for the methods that have no key of their own; HEAD counts as GET, as it
// does for routers. All other requests keep the middleware's limit.
//
// A router sets the pattern of a request when it has matched it. So the
// middleware must wrap the registered handlers (With and Group of chi, not Use),
// or [WithMux] or [WithRoute] must name the router. Otherwise the routes would
// silently lose their limits: the answer is then 500 LIMIT_MISPLACED.
//
// LIMIT_MISPLACED is also the answer to a request whose path matches a key while
// its pattern is only a beginning ("/api/*", "/", or none), as outside of a
// mounted router: the route inside is unknown, or registered otherwise than the
// key. An example is the key "/login" for the route "POST /login" beside a "/"
// for all methods: write the method into the key. A request for which WithMux or
// WithRoute finds no route (404 or 405) has the middleware's limit.
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

// WithMux reads patterns from mux, for a middleware around it:
// Middleware(limit, key, WithMux(mux))(mux). mux must see the same path as the
// middleware: no http.StripPrefix in between. Each request is matched twice.
func WithMux(mux *http.ServeMux) MiddlewareOption { return func(o *middlewareOptions) { o.mux = mux } }

// WithRoute finds the route of a request, for a middleware around a router that
// is not an [http.ServeMux]. f returns the pattern, with or without its method,
// or "" if there is no route. With chi:
//
//	ratelimit.WithRoute(func(r *http.Request) string {
//		return router.Find(chi.NewRouteContext(), r.Method, r.URL.Path)
//	})
func WithRoute(f func(*http.Request) string) MiddlewareOption {
	return func(o *middlewareOptions) { o.route = f }
}

// WithPreflights counts CORS preflights like other requests. By default they
// pass uncounted: a browser sends them by itself, without a client's credentials.
// A preflight is an OPTIONS request with Origin and Access-Control-Request-Method
// and without a body, Cookie, Authorization, X-HTTP-Method-Override and similar
// headers, which no browser sends with one. [WithDeny] refuses them, too.
//
// Set it if a handler does its work for OPTIONS, too: one that is registered
// without a method ("/login") and does not check the method. Otherwise any client
// that sends these headers passes that handler's limit.
func WithPreflights() MiddlewareOption { return func(o *middlewareOptions) { o.preflights = true } }

// WithDeny answers clients whose address lies in one of the ranges with 403
// CLIENT_DENIED; nothing is counted. A client whose address p cannot determine
// gets 400 CLIENT_UNKNOWN. Without ranges no client is denied.
// [clientip.ParseRanges] reads them from text. A later WithDeny replaces an
// earlier one.
func WithDeny(p clientip.Policy, ranges ...netip.Prefix) MiddlewareOption {
	return func(o *middlewareOptions) { o.deny = newAddressList("WithDeny", p, ranges) }
}

// WithAllow lets clients whose address lies in one of the ranges pass
// uncounted, unless [WithDeny] names them too. A client whose address p cannot
// determine is counted.
func WithAllow(p clientip.Policy, ranges ...netip.Prefix) MiddlewareOption {
	return func(o *middlewareOptions) { o.allow = newAddressList("WithAllow", p, ranges) }
}

// WithSkip lets requests for which f returns true pass uncounted, before the
// lists are checked: health checks, which may have no address.
func WithSkip(f func(*http.Request) bool) MiddlewareOption {
	return func(o *middlewareOptions) { o.skip = f }
}

// WithShadow counts and decides, and refuses nothing: to try a limit out. A
// request that the limit or WithDeny would have refused is the recorder's event
// "shadow_denied", and a decision with Allowed false for [WithOnDecision] and
// [FromContext]. A request without a key and one that could not be decided pass
// too. Retry-After is never sent; RateLimit headers are (see [WithHeaders]).
func WithShadow() MiddlewareOption { return func(o *middlewareOptions) { o.shadow = true } }

// WithOnDecision calls f with every decision, before the request goes on or is
// refused. A limit that could not be decided under FailClosed is a decision
// with Degraded and Err, and not Allowed. f must be safe for concurrent use.
func WithOnDecision(f func(*http.Request, Decision)) MiddlewareOption {
	return func(o *middlewareOptions) { o.onDecision = f }
}

// WithLogger sets the log for refused requests: denials at level info, limits
// that could not be decided at level error. Defaults to none.
func WithLogger(l *slog.Logger) MiddlewareOption { return func(o *middlewareOptions) { o.logger = l } }

// addressList is a policy and the ranges that it is checked against.
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
			misuse(where + ": the range " + strconv.Quote(r.String()) + " has bits beyond its length")
		case r.Addr().Is4In6() && r.Bits() >= 96:
			// Addresses are compared unmapped.
			r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-96)
		}
		if r.Bits() == 0 {
			misuse(where + ": the range " + strconv.Quote(r.String()) + " contains every address")
		}
		list.ranges = append(list.ranges, r)
	}
	return list
}

// contains reports whether the client is on the list.
func (l addressList) contains(r *http.Request) (bool, error) {
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
