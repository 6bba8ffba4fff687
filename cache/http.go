package cache

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// HTTP caches the responses of HTTP handlers, as a shared cache does (RFC 9111,
// with the stale directives of RFC 5861). Make it with [NewHTTP]; it is safe for
// concurrent use.
//
//	pages, err := cache.NewHTTP(r, "pages", cache.HTTPOptions{Near: 16 << 20, Detached: true})
//	…
//	http.ListenAndServe(addr, pages.Middleware(mux))
//
// A handler says by its headers what may be stored, and for how long:
//
//	Cache-Control: max-age=60, stale-while-revalidate=30, stale-if-error=600
//	Vary: Accept-Language
//	Surrogate-Key: article-7 frontpage
//
// # What is stored
//
// Responses to GET that say how long they are fresh (s-maxage, max-age,
// Expires), or, with HTTPOptions.DefaultTTL, those of a status that RFC 9110
// lets caches store without. A HEAD is served from a stored GET, and goes to the
// handler otherwise. It is never stored, nor given to another client who waits
// for it, when a response
//
//   - has Cache-Control no-store, private or no-cache (also with a list of
//     headers), Vary: *, trailers, or a status below 200, of 500 and above, 206 or
//     304; the same words, or max-age=0, in CDN-Cache-Control or
//     Surrogate-Control, which count only where they forbid;
//   - gives one client something, or has him do something: Set-Cookie,
//     WWW-Authenticate, Authentication-Info, Clear-Site-Data, X-Auth-Token,
//     X-Access-Token, X-Csrf-Token and their like;
//   - answers a request with Authorization or a client certificate, and does not
//     say public, s-maxage or must-revalidate (RFC 9111 §3.5);
//   - answers a request with a Cookie, one of HTTPOptions.Credentials, or a
//     header by which proxies say who the client is (X-Auth-Request-User,
//     X-Forwarded-User, Tailscale-User-Login and their like) or he himself does
//     (X-Api-Key and its like), and does not say public or s-maxage;
//   - has more than HTTPOptions.MaxBody, is flushed and goes on for 100 ms,
//     hijacked, an event stream
//     or preceded by a 1xx: it is passed on as it is written. Proxies flush what
//     has no length and are done before that;
//   - has tags that this package does not take.
//
// Requests with credentials have entries of their own: what was made for a
// client who is known is never served to one who is not, nor the other way
// round. A client that is known by anything else, say by its address, needs a
// Vary or a private.
//
// Requests with a Range, If-Match, If-Unmodified-Since, Upgrade or a body pass
// by the cache, and so do those that ask for another method by header.
//
// # The key
//
// It holds the scheme, Host, path (that which the handler sees and that which
// was asked for), and the query with its parameters sorted by
// name; what headers say was asked for (X-Forwarded-Host and all others of
// X-Forwarded-, X-Original-URL, X-Scheme and their like, Forwarded
// without the addresses), so that no one can have links to elsewhere stored; and
// what HTTPOptions.KeyHeaders names. What names only the way (X-Forwarded-For,
// X-Forwarded-Server, Via) is no part of it. Every other header that a response depends
// on must be named by Vary: at most 16. Origin and Accept-Encoding are added for
// responses that allow one origin or have a Content-Encoding. Of Accept-Encoding
// only those codings count that handlers may give. Of the variants of a URL
// HTTPOptions.MaxVariants are stored; the others go to the handler each time. Of
// many values, say User-Agent, a middleware outside had better make few. Host is
// part of the URL: refuse names that are not yours outside.
//
// A method that changes something, when its status is below 400, removes what
// is stored of its URL, before the client hears of it: every variant, whatever
// headers it or they came with, and also of the URLs of the same origin that its
// response names by Location and Content-Location (RFC 9111 §4.4). A URL is there
// its path and query, without regard to escapes, order, scheme and host: behind
// proxies no one knows which names a page has. Of several hosts behind one cache
// a change removes the pages of one path on all; give them caches of their own
// where that is too much.
//
// # How it is served
//
// Of all requests in all processes one runs the handler, and the others wait for
// it, as with [Cache.GetOrLoad]. As soon as its headers say that the response is
// not shareable they run the handler for themselves; for HTTPOptions.PassFor
// no one waits then, and every second one request finds out whether it still is
// so.
//
// That one run has the values of its request's context and not its end: it goes
// on without its client, for the others, at most for HTTPOptions.LoadTimeout,
// and then for its own client only. Its request does not end before it does, for
// routers use what belongs to a request again; HTTPOptions.Detached lifts that.
// It gets neither conditions (If-None-Match)
// of the client, nor X-Forwarded-Server and X-Forwarded-By, nor what
// HTTPOptions.Query and Cookie leave out. It writes to a
// header of its own: what a middleware outside has set is added to the response
// and not stored. A panic is raised again in the goroutine of the request,
// logged with its stack; where a stale response may be served, that is.
//
// A 200 without an ETag gets one, a hash of its body. If-None-Match and
// If-Modified-Since are answered with a 304. A stale response whose handler gave
// a validator is validated: the handler is asked with If-None-Match, and may
// answer 304. Responses carry Age, and Cache-Status (RFC 9211):
//
//	madcrow; hit; ttl=42                     from the cache
//	madcrow; hit; ttl=-3                     stale
//	madcrow; fwd=uri-miss; stored; ttl=60    by the handler
//	madcrow; fwd=vary-miss; stored; ttl=60; collapsed
//	                                         by the handler, for another client
//	madcrow; fwd=stale; fwd-status=503; ttl=-90
//	                                         the handler failed
//	madcrow; fwd=miss; detail=pass           by the handler, not shareable
//
// A stale response is served while it is loaded again, within
// stale-while-revalidate; when the handler panics, takes longer than LoadTimeout
// or answers 500, 502, 503 or 504, flushed or not, within stale-if-error; never with
// must-revalidate or proxy-revalidate. RFC 9111 forbids it with s-maxage too;
// here one of the two directives beside it counts, as with most CDNs, but not
// the defaults of the options.
//
// What the handler says to one client, or once (429, 403, 404, a cookie, private),
// goes to him and does not end these windows: within stale-while-revalidate the
// stale response is served on, and the handler asked again, at most every second;
// within stale-if-error it is there when the handler fails. A 404 or 410 ends the
// former: it is about the page. A new response that may be stored takes its
// place, a 404 or 410 with max-age too.
//
// RateLimit and X-RateLimit- fields, Retry-After, request and trace ids and
// Server-Timing are those of the client whose request made the response, and are
// not stored.
//
// # Tags
//
// Tags are those of the whole prefix: [HTTP.DeleteTag] and [Cache.DeleteTag]
// remove pages and objects together. They must be known before the handler
// runs, or a removal meanwhile would be missed. HTTPOptions.Tags knows them.
// Those that the handler gives by header (Surrogate-Key with spaces between,
// Cache-Tag with commas) are known only from the last time: a response with a
// tag that is new for its URL is not stored, and given to one client only; the
// next one is. Tags that differ each time keep a response from being stored at
// all. Both headers are sent to the client. Tags that a URL no longer
// has stay with it for a while.
//
// # Without Redis
//
// Nothing fails because of the cache. The handler is run, by one request for
// all that wait in this process; with HTTPOptions.Near its response is then kept
// for a second, and a near copy is served stale where the response allows that.
type HTTP struct {
	c       *Cache[*storedResponse]
	opt     HTTPOptions
	taggers atomic.Bool // handlers give tags by header
	codings codings
}

// HTTPOptions says how an [HTTP] works. The zero value works, and stores what
// says that it may be.
type HTTPOptions struct {
	// DefaultTTL is how long a response is fresh that does not say so itself,
	// and has the status 200, 203, 204, 300, 301, 308, 404, 405, 410 or 414.
	// Defaults to 0: it is not stored.
	DefaultTTL time.Duration
	// MinTTL and MaxTTL bound what responses say. MinTTL does not concern
	// max-age=0. They default to 0 and a day.
	MinTTL, MaxTTL time.Duration
	// StaleWhileRevalidate and StaleIfError are for responses that do not say
	// so themselves. They default to 0: not at all.
	StaleWhileRevalidate, StaleIfError time.Duration
	// MaxStale bounds both, and what responses say of them. Defaults to a day.
	MaxStale time.Duration
	// MaxVariants is how many responses of one URL may be stored beside the one
	// of the plain request: by Vary, KeyHeaders, and headers that say what was
	// asked for. Of more, one in eight takes the place of the oldest; the others
	// are not stored. Defaults to 64, at most 1024.
	MaxVariants int
	// MaxBody is how many bytes a response may have to be stored. Defaults to 1
	// MiB; Config.MaxValueSize must hold 64 KiB more.
	MaxBody int

	// Tags are those of the response to a request, known before it is made: at
	// most 63. The request is not cached where one of them is no tag.
	Tags func(*http.Request) []string
	// Query says which parameters matter. The others are removed from the
	// request: neither the key nor the handler sees them. Defaults to all.
	Query func(name string) bool
	// Cookie says which cookies matter, as Query. A request without any is
	// no one's in particular. Defaults to all.
	Cookie func(name string) bool
	// Credentials are headers by which clients are known beside Authorization,
	// Cookie, X-Api-Key and those of well-known proxies: "X-User-Id".
	Credentials []string
	// KeyHeaders are headers that belong to the key of every response.
	KeyHeaders []string
	// Bypass says which requests the cache has nothing to do with.
	Bypass func(*http.Request) bool
	// ObeyRequest lets clients say by Cache-Control what they want: no-cache,
	// max-age, min-fresh, max-stale, no-store, and only-if-cached, which is a
	// 504 when there is nothing. Without it they are not listened to, as is
	// usual for a cache of the server's own: otherwise anybody can have the
	// handler run.
	ObeyRequest bool
	// PassFor is for how long it is remembered that the response to a URL is
	// not shareable. Defaults to 10 seconds.
	PassFor time.Duration
	// Detached lets a handler go on after its request has ended, to make a stale
	// response again or when its client has left. Set it where Middleware is
	// outside of every router, or inside of http.ServeMux alone. Inside of chi,
	// gin, echo or fiber, which use what belongs to a request for the next one, a
	// page of one URL could be stored under another. Without it the stale response
	// is sent at once, too, but that request ends with the handler: by HTTP/2 it
	// is only then complete for the client, by HTTP/1 its connection is busy for
	// so long.
	Detached bool
	// StatusName is how the cache calls itself in Cache-Status: a token; "-"
	// leaves the header out. Defaults to "madcrow".
	StatusName string

	// These are as in [Options]. MaxLoads defaults to 1024; requests beyond it
	// wait, and run the handler for themselves after LoadTimeout.
	Near                               int64
	ReadTimeout, LoadTimeout, LeaseTTL time.Duration
	MaxLoads                           int
}

// bodyRoom is what an entry may have beside the body.
const bodyRoom = 64 << 10

// filled returns the options with their defaults, or every problem.
func (o HTTPOptions) filled(maxValue int) (HTTPOptions, error) {
	var wrong []string
	bad := func(is bool, what string) {
		if is {
			wrong = append(wrong, what)
		}
	}
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxTTL, 24*time.Hour)
	def(&o.MaxStale, 24*time.Hour)
	def(&o.PassFor, 10*time.Second)
	if o.MaxBody == 0 {
		o.MaxBody = min(1<<20, max(0, maxValue-bodyRoom))
	}
	if o.MaxLoads == 0 {
		o.MaxLoads = 1024
	}
	if o.MaxVariants == 0 {
		o.MaxVariants = 64
	}
	if o.StatusName == "" {
		o.StatusName = "madcrow"
	}
	bad(o.MaxTTL < time.Second || o.MaxTTL > maxTTL, "MaxTTL must be from a second to 10 years")
	bad(o.MinTTL < 0 || o.MinTTL > o.MaxTTL, "MinTTL must be from 0 to MaxTTL")
	bad(o.DefaultTTL < 0 || o.DefaultTTL > o.MaxTTL, "DefaultTTL must be from 0 to MaxTTL")
	bad(o.MaxStale < 0 || o.MaxStale > maxTTL, "MaxStale must be from 0 to 10 years")
	bad(o.StaleWhileRevalidate < 0 || o.StaleIfError < 0, "StaleWhileRevalidate and StaleIfError must not be negative")
	bad(o.PassFor < time.Second || o.PassFor > time.Hour, "PassFor must be from a second to an hour")
	bad(o.MaxBody < 0 || o.MaxBody > maxValue-bodyRoom, fmt.Sprintf("MaxBody must be from 0 to %d: Config.MaxValueSize less %d", maxValue-bodyRoom, bodyRoom))
	bad(o.MaxVariants < 1 || o.MaxVariants > 1024, "MaxVariants must be from 1 to 1024")
	bad(o.StatusName != "-" && !isToken(o.StatusName), "StatusName must be a token that begins with a letter")
	o.Credentials, o.KeyHeaders = canonical(o.Credentials), canonical(o.KeyHeaders)
	if wrong != nil {
		return o, &ValidationError{Field: "options", Message: strings.Join(wrong, "; ")}
	}
	return o, nil
}

func canonical(names []string) []string {
	names = slices.Clone(names)
	for i := range names {
		names[i] = http.CanonicalHeaderKey(names[i])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isToken as in RFC 8941.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !(s[i] >= '0' && s[i] <= '9') && strings.IndexByte("-_.:/*", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

// NewHTTP makes a cache of responses. name is as for [New], and not that of a
// Cache: the entries are of another form. Redis is not asked. Close it when it
// is not needed any more, after the server and before the Redis.
func NewHTTP(r *madcrow.Redis, name string, options HTTPOptions) (*HTTP, error) {
	opt, err := options.filled(r.Config().MaxValueSize)
	if err != nil {
		return nil, err
	}
	c, err := New(r, name, Options[*storedResponse]{
		Codec: httpCodec{},
		// Each response says for itself how long it lives. The longest life is
		// that which its tags must have.
		TTL: opt.MaxTTL, StaleFor: opt.MaxStale, NegativeTTL: -1,
		Near: opt.Near, ReadTimeout: opt.ReadTimeout, LoadTimeout: opt.LoadTimeout, LeaseTTL: opt.LeaseTTL, MaxLoads: opt.MaxLoads,
	})
	if err != nil {
		return nil, err
	}
	c.lateTags = true
	return &HTTP{c: c, opt: opt}, nil
}

// Middleware caches the responses of next. It belongs inside of what every
// request needs (limits, logins, compression by Accept-Encoding) and outside of
// what makes the response. See [HTTP] for its rules.
func (h *HTTP) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			h.get(w, r, next)
		case http.MethodOptions, http.MethodTrace:
			h.forward(w, r, next, "fwd=method")
		default:
			h.change(w, r, next)
		}
	})
}

// change lets a method pass that changes something.
func (h *HTTP) change(w http.ResponseWriter, r *http.Request, next http.Handler) {
	cleaned := h.cleaned(r)
	tags := h.urlTags(cleaned)[:1] // the handler may change the URL
	cw := &changeWriter{ResponseWriter: w}
	cw.changed = func() {
		for _, name := range []string{"Location", "Content-Location"} {
			tags = union(tags, h.tagsOfReference(cleaned, w.Header().Get(name)))
		}
		// The handler's client may be gone; the change stays.
		_ = h.c.dropTags(context.WithoutCancel(r.Context()), tags) // it is queued, or cannot be
	}
	h.forward(cw, r, next, "fwd=method")
	cw.begin(http.StatusOK)
}

// tagsOfReference are the tags of a URL that the response to r names, if it is
// of the same origin: RFC 9111 §4.4.
func (h *HTTP) tagsOfReference(r *http.Request, reference string) []string {
	if reference == "" {
		return nil
	}
	base := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if path := askedPath(r); path != "" {
		if u, err := url.ParseRequestURI(path); err == nil {
			base.Path, base.RawPath = u.Path, u.RawPath
		}
	}
	u, err := base.Parse(reference)
	if err != nil || u.Host != "" && !sameHost(r, u.Host) || u.Opaque != "" {
		return nil
	}
	cleaned := h.cleaned(&http.Request{URL: &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}})
	query := normalQuery(cleaned.URL.RawQuery)
	tags := []string{h.tagOf(u.Path, query)}
	for _, prefix := range r.Header["X-Forwarded-Prefix"] { // the proxy takes it away
		if rest, ok := strings.CutPrefix(u.Path, strings.TrimSuffix(prefix, "/")); ok && prefix != "" {
			tags = append(tags, h.tagOf(rest, query))
		}
	}
	return tags
}

// sameHost says whether a request was made to a host, as far as is known behind
// proxies.
func sameHost(r *http.Request, host string) bool {
	names := []string{r.Host, r.URL.Host}
	for name, values := range r.Header {
		if asked(name) && strings.HasSuffix(name, "Host") {
			names = append(names, values...)
		}
	}
	for _, v := range r.Header["Forwarded"] {
		for part := range splitOutsideQuotes(v, ",;") {
			if name, value, _ := strings.Cut(part, "="); strings.EqualFold(strings.TrimSpace(name), "host") {
				names = append(names, strings.Trim(value, `" `))
			}
		}
	}
	return slices.ContainsFunc(names, func(name string) bool { return name != "" && withoutPort(name) == withoutPort(host) })
}

// withoutPort is a host without a port that goes without saying.
func withoutPort(host string) string {
	host = strings.ToLower(host)
	return strings.TrimSuffix(strings.TrimSuffix(host, ":80"), ":443")
}

// changeWriter says when the handler begins to report success.
type changeWriter struct {
	http.ResponseWriter
	begun   bool
	changed func()
}

func (w *changeWriter) begin(status int) {
	if w.begun || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	if w.begun = true; status < 400 {
		w.changed()
	}
}

func (w *changeWriter) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *changeWriter) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Flush is for handlers that look for [http.Flusher].
func (w *changeWriter) Flush() { _ = w.FlushError() }

// FlushError begins the response.
func (w *changeWriter) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *changeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack is for handlers that look for [http.Hijacker].
func (w *changeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Delete removes what is stored of the URL of r, in all variants: whatever the
// scheme and the host, whoever asks, and through whatever proxy. Of r it needs
// the URL, and its path and query alone count. Where a middleware outside has
// changed the path, as [http.StripPrefix] does, a path means all that the
// handler sees by it; with RequestURI it is that which clients ask for. The error
// is as that of [Cache.Delete].
func (h *HTTP) Delete(ctx context.Context, r *http.Request) error {
	return h.c.dropTags(ctx, h.urlTags(h.cleaned(r))[:1])
}

// DeleteTag removes every response of a tag, at once, and whatever else on the
// same Redis and prefix has it: see [Cache.DeleteTag].
func (h *HTTP) DeleteTag(ctx context.Context, tags ...string) error {
	return h.c.DeleteTag(ctx, tags...)
}

// ExpireTag makes every response of a tag stale: it is served where
// stale-while-revalidate or stale-if-error allow that.
func (h *HTTP) ExpireTag(ctx context.Context, tags ...string) error {
	return h.c.ExpireTag(ctx, tags...)
}

// Clear removes every response.
func (h *HTTP) Clear(ctx context.Context) error { return h.c.Clear(ctx) }

// Close is [Cache.Close]. Requests go to the handler after it.
func (h *HTTP) Close(ctx context.Context) error { return h.c.Close(ctx) }
