// Package httpcache caches the responses of HTTP handlers in Redis, for all
// processes, as a shared cache does (RFC 9111, with the stale directives of RFC
// 5861). It stands on package cache, whose tags it shares.
//
//	pages, err := httpcache.New(r, "pages", httpcache.Options{NearCacheBytes: 16 << 20, Detached: true})
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
// Expires), or, with Options.DefaultTTL, those of a status that RFC 9110
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
//   - answers a request with a Cookie, one of Options.Credentials, or a
//     header by which proxies say who the client is (X-Auth-Request-User,
//     X-Forwarded-User, Tailscale-User-Login and their like) or he himself does
//     (X-Api-Key and its like), and does not say public or s-maxage;
//   - has more than Options.MaxBody, is flushed and goes on for 100 ms,
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
// what Options.KeyHeaders names. What names only the way (X-Forwarded-For,
// X-Forwarded-Server, Via) is no part of it. Every other header that a response depends
// on must be named by Vary: at most 16. Origin and Accept-Encoding are added for
// responses that allow one origin or have a Content-Encoding. Of Accept-Encoding
// only those codings count that handlers may give. Of the variants of a URL
// Options.MaxVariants are stored; the others go to the handler each time. Of
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
// it, as with [cache.Cache.GetOrLoad]. As soon as its headers say that the response must
// not be shared they run the handler for themselves; for Options.PassTTL
// no one waits then, and every second one request finds out whether it still is
// so.
//
// That one run has the values of its request's context and not its end: it goes
// on without its client, for the others, at most for Options.LoadTimeout,
// and then for its own client only. Its request does not end before it does, for
// routers use what belongs to a request again; Options.Detached lifts that.
// It gets neither conditions (If-None-Match)
// of the client, nor X-Forwarded-Server and X-Forwarded-By, nor what
// Options.Query and Cookie leave out. It writes to a
// header of its own: what a middleware outside has set is added to the response
// and not stored. A panic is raised again in the goroutine of the request,
// logged with its stack, once for each place; where a stale response may be
// served, that is. The log says when the handler begins to fail, with 500 and above
// or a panic, and when it succeeds again.
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
// Tags are those of the whole prefix: [Cache.DeleteTag] and [cache.Cache.DeleteTag]
// remove pages and objects together. They must be known before the handler
// runs, or a removal meanwhile would be missed. Options.Tags knows them.
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
// all that wait in this process; with Options.NearCacheBytes its response is then kept
// for a second, and a near copy is served stale where the response allows that.
package httpcache
