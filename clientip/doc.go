// Package clientip says whose address a request has: one answer for the rate
// limiter, the sessions and the log.
//
// Behind a proxy the address of the connection is the proxy's, and the client's
// stands in a header. Anyone can send such a header, so only the way the server
// is reached tells which part of it is true. That is for the operator to say:
// there is no default, and nothing is tried in turn.
//
//	reached                                           policy
//	directly, or through PROXY protocol (AWS NLB)     RemoteAddr()
//	through a fixed chain that appends (nginx, ALB)   TrustedProxies(n)
//	through proxies of known addresses                TrustedRanges(...)
//	through an edge that sets a header (Cloudflare)   Header("CF-Connecting-IP")
//
// Whenever the answer would be a guess there is none: [Policy.Addr] returns
// [ErrUnknown]. A server should refuse such a request, or count all of them as
// one client; it must not go on to another header.
//
// The header Forwarded (RFC 7239) is not read.
package clientip
