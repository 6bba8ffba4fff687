// Package clientip determines the client's address of a request, in one place for
// the rate limiter, the sessions and the log.
//
// Behind a proxy the address of the connection is the proxy's, and the client's
// address is in a header. Anyone can send such a header, so the network in front of
// the server decides which part of it can be trusted. Only the operator knows that
// network: there is no default, and no sequence of headers to try.
//
//	reached                                           policy
//	directly, or through PROXY protocol (AWS NLB)     RemoteAddr()
//	through a fixed chain that appends (nginx, ALB)   TrustedProxies(n)
//	through proxies of known addresses                TrustedRanges(...)
//	through an edge that sets a header (Cloudflare)   Header("CF-Connecting-IP")
//
// [Policy.Addr] never guesses: it returns [ErrUnknown] instead. A server should
// refuse such a request, or count all of them as one client; it must not fall back
// to another header.
//
// The header Forwarded (RFC 7239) is not read.
package clientip
