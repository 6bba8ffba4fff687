package ratelimit

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/problem"
)

// Limit is a limit that [Middleware] can enforce: a [*Limiter], a
// [*TokenBucket] or a [*Group].
type Limit interface {
	// limiters returns the limits that decide together.
	limiters() []*Limiter
	// allowCosts admits a request, or denies it. Of a single limit each is nil.
	allowCosts(ctx context.Context, subject string, costs []int64) (d Decision, each []Decision, violated []string, err error)
}

func (l *Limiter) limiters() []*Limiter { return []*Limiter{l} }

func (l *Limiter) allowCosts(ctx context.Context, subject string, costs []int64) (Decision, []Decision, []string, error) {
	d, err := l.AllowN(ctx, subject, costs[0])
	return d, nil, nil, err
}

func (g *Group) limiters() []*Limiter { return g.limits }

func (g *Group) allowCosts(ctx context.Context, subject string, costs []int64) (Decision, []Decision, []string, error) {
	j, err := g.AllowN(ctx, subject, costs...)
	return j.Decision, j.Limits, j.Violated, err
}

// typeQuota is the problem type of a denial, of the Internet-Draft that
// [HeadersRateLimit] names.
const typeQuota = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// The texts of a denial.
const (
	titleQuota    = "Quota Exceeded"
	messageUsedUp = "The quota is used up for now"
	messageNever  = "The request costs more than the quota allows"
)

// Middleware lets a request pass when limit admits it, and sends the client its
// quota (see [Headers]). by says whose quota a request uses. It has no default:
// behind a proxy the address of the connection is the same for all clients.
//
//	clients, err := clientip.TrustedProxies(1)
//	…
//	limited := ratelimit.Middleware(api, ratelimit.ByClient(clients), ratelimit.MiddlewareOptions{})
//	http.ListenAndServe(addr, limited(mux))
//
// The order of checks is that of the fields of [MiddlewareOptions]: Skip, Deny,
// preflights, Allow, the cost, by, the limit of the route or the given one. A
// refused request does not reach next. It gets a problem document (package problem):
//
//	429 QUOTA_EXCEEDED   denied; Retry-After says for how long
//	429 QUOTA_NEVER      it costs more than the limit ever admits; no Retry-After
//	503 LIMIT_UNAVAILABLE, 504 LIMIT_TIMEOUT
//	                     not decided, see [madcrow.Error]; never a 429
//	400 KEY_MISSING, CLIENT_UNKNOWN
//	                     by finds no key
//	403 CLIENT_DENIED    the client is on the list Deny
//	500                  an option was used wrongly: see Cost, Routes
//
// A 429 has the type https://iana.org/assignments/http-problem-types#quota-exceeded
// and the member violated-policies.
//
// While Redis is unavailable the [madcrow.FailPolicy] of the limit decides: FailOpen lets
// all requests pass, FailClosed answers 503 or 504, FailLocal counts in this
// process. A cost above this process's share is then a 503: it is not above the
// limit. No request waits longer than the limit's time-out.
//
// [DecisionFrom] returns the decision. next gets the http.ResponseWriter
// unwrapped, so Flush, Hijack and http.ResponseController work; the headers are
// set before next runs. Middlewares may be nested: each counts, and the context
// holds the innermost decision. Middleware panics if limit, by or an option
// cannot be used. [LimitBy] makes the limit, too.
func Middleware(limit Limit, by Key, o MiddlewareOptions) func(next http.Handler) http.Handler {
	m := newMiddleware(limit, by, o)
	return func(next http.Handler) http.Handler {
		if next == nil {
			misuse("Middleware needs a handler")
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}
}

// LimitBy is [New] and [Middleware] in one line, for a limit that needs no more
// than this:
//
//	limited := ratelimit.LimitBy(r, "api", ratelimit.PerMinute(10), ratelimit.ByClient(clientip.RemoteAddr()), madcrow.FailOpen)
//
// Nothing in it has a default: two limits with one name share their state, the
// address of a client behind a proxy is another one than that of the connection,
// and without Redis a limit either admits, refuses or counts alone. LimitBy panics
// with the [*madcrow.ArgumentError] of New, which lists every problem.
func LimitBy(r *madcrow.Redis, name string, rate Rate, by Key, policy madcrow.FailPolicy) func(next http.Handler) http.Handler {
	l, err := New(r, name, Options{Rate: rate, FailPolicy: policy})
	if err != nil {
		panic(err)
	}
	return Middleware(l, by, MiddlewareOptions{})
}

// DecisionFrom returns the decision of the innermost [Middleware] about the
// request with this context; ok is false if there is none.
func DecisionFrom(ctx context.Context) (d Decision, ok bool) {
	p, ok := ctx.Value(decisionKey{}).(*Decision)
	if !ok {
		return Decision{}, false
	}
	return *p, true
}

type decisionKey struct{}

// quota is a limit with everything that a middleware derives from it once.
type quota struct {
	limit     Limit
	limits    []*Limiter
	policy    string  // the value of RateLimit-Policy
	unitCosts []int64 // the costs of a request by default
}

func newQuota(where string, limit Limit) *quota {
	missing := limit == nil
	switch l := limit.(type) {
	case *Limiter:
		missing = l == nil
	case *TokenBucket:
		missing = l == nil || l.Limiter == nil
	case *Group:
		missing = l == nil || len(l.limits) == 0
	}
	if missing || limit.limiters()[0].r == nil {
		misuse(where + " needs a limit that was made by New, NewTokenBucket or Join")
	}
	q := &quota{limit: limit, limits: limit.limiters()}
	items := make([]string, len(q.limits))
	for i, l := range q.limits {
		items[i] = policyItem(l)
		q.unitCosts = append(q.unitCosts, 1)
		if slices.ContainsFunc(q.limits[:i], func(o *Limiter) bool { return o.name == l.name }) {
			misuse(where + ": two limits of the group are named " + strconv.Quote(l.name) + ", so clients could not distinguish them")
		}
	}
	q.policy = strings.Join(items, ", ")
	return q
}

type middleware struct {
	MiddlewareOptions
	base   *quota
	quotas map[string]*quota // by pattern
	by     Key
	deny   addressList
	allow  addressList
	events *events.Source
}

func newMiddleware(limit Limit, by Key, o MiddlewareOptions) *middleware {
	m := &middleware{MiddlewareOptions: o, by: by, base: newQuota("Middleware", limit), quotas: make(map[string]*quota)}
	lead := m.base.limits[0]
	m.events = &lead.events
	if m.Headers == 0 {
		m.Headers = HeadersRateLimit | HeadersRetryAfter
	}
	if m.Logger == nil {
		m.Logger = lead.opt.Logger
	}
	checkKey("Middleware", by)
	if m.Cost != nil && m.Costs != nil {
		misuse("MiddlewareOptions.Cost and Costs exclude each other")
	}
	if m.Mux != nil && m.Route != nil {
		misuse("MiddlewareOptions.Mux and Route exclude each other")
	}
	m.deny = newAddressList("MiddlewareOptions.Deny", o.Client, o.Deny)
	m.allow = newAddressList("MiddlewareOptions.Allow", o.Client, o.Allow)
	for pattern, l := range o.Routes {
		where := "MiddlewareOptions.Routes " + strconv.Quote(pattern)
		if pattern == "" {
			misuse(where + ": the empty pattern never matches")
		}
		if m.Mux != nil {
			checkPattern(where, pattern)
		}
		m.quotas[pattern] = newQuota(where, l)
	}
	return m
}

// checkPattern refuses patterns that no http.ServeMux accepts.
func checkPattern(where, pattern string) {
	defer func() {
		if v := recover(); v != nil {
			misuse(fmt.Sprint(where, ": ", v))
		}
	}()
	http.NewServeMux().Handle(pattern, http.NotFoundHandler())
}

// outcome is the result of a middleware's checks for one request.
type outcome struct {
	Decision
	decided  bool       // false: there is no decision
	each     []Decision // of a group
	violated []string
	quota    *quota            // that decided; nil if none did
	refusal  error             // the problem to answer with; nil: the request passes
	failed   bool              // the refusal is a failure, no denial
	event    madcrow.EventType // for the recorder, beside that of the limit
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	o := m.decide(r)
	if o.event != 0 {
		m.events.Count(r.Context(), o.event)
	}
	if o.quota != nil {
		o.setHeaders(w.Header(), m.Headers)
	}
	if o.decided && m.OnDecision != nil {
		m.OnDecision(r, o.Decision)
	}
	if o.refusal != nil {
		if !m.Shadow {
			problem.Write(w, r, m.Logger, o.refusal)
			return
		}
		if o.decided && !o.failed {
			m.events.Count(r.Context(), madcrow.EventLimitShadowDenied)
		}
	}
	if !o.decided {
		next.ServeHTTP(w, r)
		return
	}
	inner := r.WithContext(context.WithValue(r.Context(), decisionKey{}, &o.Decision))
	next.ServeHTTP(w, inner)
	// A mux inside sets the pattern in the copy; logs outside read it here.
	r.Pattern = inner.Pattern
}

// decide runs the checks in the order that Middleware documents.
func (m *middleware) decide(r *http.Request) *outcome {
	if m.Skip != nil && m.Skip(r) {
		return m.bypass(true)
	}
	denied, err := m.deny.contains(r)
	if err != nil {
		return &outcome{refusal: err, event: madcrow.EventLimitUnkeyed}
	}
	if denied {
		o := m.bypass(false)
		o.refusal, o.event = errListed, madcrow.EventLimitDeniedByList
		return o
	}
	if !m.CountPreflights && preflight(r) {
		return m.bypass(true)
	}
	// A client of unknown address is not on this list, and is counted.
	if allowed, _ := m.allow.contains(r); allowed {
		return m.bypass(true)
	}
	pattern := m.pattern(r)
	q, err := m.quotaOf(r, pattern)
	if err != nil {
		return &outcome{refusal: err}
	}
	costs, free, err := m.costsOf(r, q)
	switch {
	case err != nil:
		return &outcome{refusal: err}
	case free:
		return m.bypass(true)
	}
	subject, err := m.by.subject(r, pattern)
	if err != nil {
		return &outcome{refusal: err, event: madcrow.EventLimitUnkeyed}
	}
	return m.enforce(r.Context(), q, subject, costs)
}

// bypass is a decision that counts nothing.
func (m *middleware) bypass(allowed bool) *outcome {
	return &outcome{
		Decision: Decision{Allowed: allowed, Limiter: m.base.limits[0].name, Source: SourceBypass},
		decided:  true, event: madcrow.EventLimitBypassed,
	}
}

// unmatched is the pattern of a request without a route. No route has this
// pattern: patterns hold a slash.
const unmatched = "unmatched"

func (m *middleware) pattern(r *http.Request) string {
	pattern := ""
	switch {
	case m.Route != nil:
		pattern = m.Route(r)
	case m.Mux != nil:
		_, pattern = m.Mux.Handler(r)
	default:
		return r.Pattern
	}
	if pattern == "" {
		return unmatched
	}
	return pattern
}

// costsOf returns what the request costs in each limit of q.
func (m *middleware) costsOf(r *http.Request, q *quota) (costs []int64, free bool, err error) {
	switch {
	case m.Cost != nil:
		costs = slices.Repeat([]int64{m.Cost(r)}, len(q.limits))
	case m.Costs != nil:
		costs = m.Costs(r)
	default:
		return q.unitCosts, false, nil
	}
	if len(costs) != len(q.limits) {
		return nil, false, fmt.Errorf("ratelimit: MiddlewareOptions.Costs returned %d costs for %d limits", len(costs), len(q.limits))
	}
	if n := slices.Min(costs); n < 0 {
		return nil, false, fmt.Errorf("ratelimit: the cost of a request must not be negative, got %d", n)
	}
	return costs, slices.Max(costs) == 0, nil
}

func (m *middleware) enforce(ctx context.Context, q *quota, subject string, costs []int64) *outcome {
	o := &outcome{decided: true, quota: q}
	var err error
	o.Decision, o.each, o.violated, err = q.limit.allowCosts(ctx, subject, costs)
	switch {
	case err != nil:
		l := q.limits[0]
		o.Decision = l.decision(SourceFallback, costs[0])
		o.Degraded, o.Cause = true, err
		o.each, o.quota, o.refusal, o.failed = nil, nil, err, true
	case o.Allowed:
	case o.Degraded && o.RetryAfter == Never:
		// The cost is above this process's share and not above the limit: Redis
		// might have admitted it.
		o.refusal, o.failed = o.Cause, true
	default:
		o.refusal = m.denial(o)
	}
	return o
}

// denial is the 429 of a request.
func (m *middleware) denial(o *outcome) error {
	if o.violated == nil {
		o.violated = []string{o.Limiter}
	}
	p := quotaProblem(o.Decision, o.violated)
	if m.Headers&HeadersRetryAfter == 0 {
		p.RetryAfter = 0
	}
	return refusal{p, o.RetryAfter}
}

// quotaProblem is the problem of a denied request, without RateLimit headers.
func quotaProblem(d Decision, violated []string) problem.Problem {
	p := problem.Problem{
		Type: typeQuota, Title: titleQuota, Status: http.StatusTooManyRequests,
		Code: "QUOTA_EXCEEDED", Message: messageUsedUp, ViolatedPolicies: violated,
	}
	if d.RetryAfter == Never {
		p.Code, p.Message = "QUOTA_NEVER", messageNever
	} else {
		p.RetryAfter = max(d.RetryAfter, time.Nanosecond) // never 0
	}
	return p
}

// refusal is the error of a denied request.
type refusal struct {
	p     problem.Problem
	after time.Duration
}

func (e refusal) Error() string {
	text := "ratelimit: denied by " + strings.Join(e.p.ViolatedPolicies, ", ")
	if e.after == Never {
		return text + " for ever"
	}
	return text + " for " + e.after.String()
}

// Problem returns the 429.
func (e refusal) Problem() problem.Problem { return e.p }

var (
	errListed    = problem.New(http.StatusForbidden, "CLIENT_DENIED", "The address of the client is not allowed")
	errMisplaced = problem.New(http.StatusInternalServerError, "LIMIT_MISPLACED",
		"Per-route limits need the matched pattern: wrap the handlers of the routes, or set Mux or Route")
)
