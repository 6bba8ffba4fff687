package madcrow

import (
	"strings"
	"time"
)

// Event is one thing that a package reports to a [Recorder].
type Event struct {
	// Type says what happened, and names the package.
	Type EventType
	// Name is the instance: the name of the cache, of the limiter or of the session
	// manager, the topic or the stream.
	Name string
	// N is how many happened together, at least 1.
	N int
	// Duration is how long it took, where it is something that takes time: a load,
	// a delivery. Otherwise 0.
	Duration time.Duration
	// Reason is a word of a short, fixed list where the table of events in
	// docs/events.md names one, such as why a request has no session; otherwise
	// empty. It may be a label of a metric.
	Reason string
	// Err is the cause of a failure, otherwise nil.
	Err error
}

// EventType is the type of an [Event]. 0 is none. Types are compared as
// constants: their numbers are not promised, their texts are.
type EventType uint8

// The types of events; docs/events.md says when each is reported.
const (
	_ EventType = iota

	EventCacheHit
	EventCacheHitNear
	EventCacheHitNegative
	EventCacheMiss
	EventCacheStale
	EventCacheError
	EventCacheLoad
	EventCacheLoadError
	EventCacheRefresh
	EventCacheStoreError
	EventCacheTooLarge
	EventCacheFenced
	EventCacheQueued
	EventCacheUndecodable
	EventCacheUnencodable

	EventHTTPCacheHit
	EventHTTPCacheStale
	EventHTTPCacheMiss
	EventHTTPCacheStored
	EventHTTPCacheNotStored
	EventHTTPCachePass
	EventHTTPCacheBadTags

	EventLimitAllowed
	EventLimitDenied
	EventLimitDeniedLocally
	EventLimitDeniedByList
	EventLimitShadowDenied
	EventLimitBypassed
	EventLimitUnkeyed
	EventLimitDegraded
	EventLimitError
	EventLimitReplaced
	EventLimitBlocked

	EventSemaphoreAllowed
	EventSemaphoreDenied
	EventSemaphoreDegraded
	EventSemaphoreError
	EventSemaphoreReplaced
	EventSemaphoreReleased
	EventSemaphoreLost

	EventSessionRead
	EventSessionMissing
	EventSessionCreated
	EventSessionLogin
	EventSessionLogout
	EventSessionRotated
	EventSessionRevoked
	EventSessionEvicted
	EventSessionSeveralCookies
	EventSessionConflict
	EventSessionUnavailable

	EventPubSubPublished
	EventPubSubReceived
	EventPubSubMissed
	EventPubSubGap
	EventPubSubDropped
	EventPubSubMalformed
	EventPubSubHistoryLost
	EventPubSubQueued
	EventPubSubOutboxLost
	EventPubSubRenewed

	EventStreamPublished
	EventStreamDone
	EventStreamFailed
	EventStreamDead
	EventStreamClaimed
	EventStreamAdopted
	EventStreamTrimmed
	EventStreamLost
	EventStreamAckLost
	EventStreamConsumersRemoved
	EventStreamDelayed
	EventStreamDue
	EventStreamQueued
	EventStreamOutboxLost

	EventSSEOpened
	EventSSEClosed
	EventSSECut
	EventSSERefused

	EventServiceHitNear
)

// eventTexts are "package.name".
var eventTexts = [...]string{
	EventCacheHit:         "cache.hit",
	EventCacheHitNear:     "cache.hit_near",
	EventCacheHitNegative: "cache.hit_negative",
	EventCacheMiss:        "cache.miss",
	EventCacheStale:       "cache.stale",
	EventCacheError:       "cache.error",
	EventCacheLoad:        "cache.load",
	EventCacheLoadError:   "cache.load_error",
	EventCacheRefresh:     "cache.refresh",
	EventCacheStoreError:  "cache.store_error",
	EventCacheTooLarge:    "cache.too_large",
	EventCacheFenced:      "cache.fenced",
	EventCacheQueued:      "cache.queued",
	EventCacheUndecodable: "cache.undecodable",
	EventCacheUnencodable: "cache.unencodable",

	EventHTTPCacheHit:       "httpcache.hit",
	EventHTTPCacheStale:     "httpcache.stale",
	EventHTTPCacheMiss:      "httpcache.miss",
	EventHTTPCacheStored:    "httpcache.stored",
	EventHTTPCacheNotStored: "httpcache.not_stored",
	EventHTTPCachePass:      "httpcache.pass",
	EventHTTPCacheBadTags:   "httpcache.bad_tags",

	EventLimitAllowed:       "ratelimit.allowed",
	EventLimitDenied:        "ratelimit.denied",
	EventLimitDeniedLocally: "ratelimit.denied_locally",
	EventLimitDeniedByList:  "ratelimit.denied_by_list",
	EventLimitShadowDenied:  "ratelimit.shadow_denied",
	EventLimitBypassed:      "ratelimit.bypassed",
	EventLimitUnkeyed:       "ratelimit.unkeyed",
	EventLimitDegraded:      "ratelimit.degraded",
	EventLimitError:         "ratelimit.error",
	EventLimitReplaced:      "ratelimit.replaced",
	EventLimitBlocked:       "ratelimit.blocked",

	EventSemaphoreAllowed:  "semaphore.allowed",
	EventSemaphoreDenied:   "semaphore.denied",
	EventSemaphoreDegraded: "semaphore.degraded",
	EventSemaphoreError:    "semaphore.error",
	EventSemaphoreReplaced: "semaphore.replaced",
	EventSemaphoreReleased: "semaphore.released",
	EventSemaphoreLost:     "semaphore.lost",

	EventSessionRead:           "session.read",
	EventSessionCreated:        "session.created",
	EventSessionLogin:          "session.login",
	EventSessionLogout:         "session.logout",
	EventSessionRotated:        "session.rotated",
	EventSessionRevoked:        "session.revoked",
	EventSessionEvicted:        "session.evicted",
	EventSessionMissing:        "session.missing",
	EventSessionSeveralCookies: "session.several_cookies",
	EventSessionConflict:       "session.conflict",
	EventSessionUnavailable:    "session.unavailable",

	EventPubSubPublished:   "pubsub.published",
	EventPubSubReceived:    "pubsub.received",
	EventPubSubMissed:      "pubsub.missed",
	EventPubSubGap:         "pubsub.gap",
	EventPubSubDropped:     "pubsub.dropped",
	EventPubSubMalformed:   "pubsub.malformed",
	EventPubSubHistoryLost: "pubsub.history_lost",
	EventPubSubQueued:      "pubsub.queued",
	EventPubSubOutboxLost:  "pubsub.outbox_lost",
	EventPubSubRenewed:     "pubsub.renewed",

	EventStreamPublished:        "stream.published",
	EventStreamDone:             "stream.done",
	EventStreamFailed:           "stream.failed",
	EventStreamDead:             "stream.dead",
	EventStreamClaimed:          "stream.claimed",
	EventStreamAdopted:          "stream.adopted",
	EventStreamTrimmed:          "stream.trimmed",
	EventStreamLost:             "stream.lost",
	EventStreamAckLost:          "stream.ack_lost",
	EventStreamConsumersRemoved: "stream.consumers_removed",
	EventStreamDelayed:          "stream.delayed",
	EventStreamDue:              "stream.due",
	EventStreamQueued:           "stream.queued",
	EventStreamOutboxLost:       "stream.outbox_lost",

	EventSSEOpened:  "sse.opened",
	EventSSEClosed:  "sse.closed",
	EventSSECut:     "sse.cut",
	EventSSERefused: "sse.refused",

	EventServiceHitNear: "service.hit_near",
}

// String returns the package and the name: "cache.hit"; "none" for 0 and for a
// number that is no type.
func (t EventType) String() string {
	if t == 0 || int(t) >= len(eventTexts) {
		return "none"
	}
	return eventTexts[t]
}

// Package returns the package that reports it, such as "cache"; "" for none.
func (t EventType) Package() string {
	pkg, _, ok := strings.Cut(t.String(), ".")
	if !ok {
		return ""
	}
	return pkg
}

// Name returns the name without the package, such as "hit"; "none" for none.
func (t EventType) Name() string {
	text := t.String()
	return text[strings.IndexByte(text, '.')+1:]
}
