package httpcache

import (
	"context"

	"github.com/madcrow-go/madcrow"
)

// event reports an event of this cache.
func (h *Cache) event(ctx context.Context, t madcrow.EventType, reason string) {
	h.engine.Event(ctx, madcrow.Event{Type: t, Reason: reason})
}

// The reasons of EventHTTPCacheStale, as in RFC 5861.
const (
	whileRevalidate = "while_revalidate"
	ifError         = "if_error"
)

// servedStale notes a stale response that was served, and why where the handler
// failed.
func (h *Cache) servedStale(ctx context.Context, reason string, err error) {
	h.engine.Event(ctx, madcrow.Event{Type: madcrow.EventHTTPCacheStale, Reason: reason, Err: err})
	if err != nil {
		h.engine.ServedStale()
	}
}

// The reasons of EventHTTPCacheNotStored.
const (
	whyForbidden   = "forbidden"   // by its status or a header: no-store, private, Set-Cookie, …
	whyCredentials = "credentials" // the request had some, and nothing says that others may have the response
	whyVary        = "vary"        // by *, by too many headers, or by others than were known
	whyTags        = "tags"        // not valid, or not known before the handler ran
	whyNoLifetime  = "no_lifetime" // nothing says for how long it is fresh
	whyTooLarge    = "too_large"   // beyond Options.MaxBody
	whyStreamed    = "streamed"    // the handler flushed and went on, or took the connection
	whyIncomplete  = "incomplete"  // the body is not whole, or has trailers
	whyVariants    = "variants"    // beyond Options.MaxVariants
	whyUnavailable = "unavailable" // Redis is away
)
