package cache

import "time"

// Result is a value and how it was served.
type Result[T any] struct {
	// Value is the zero value where Found is false.
	Value T
	// Found is true for a value, fresh or, from GetOrLoad, stale.
	Found bool
	// Source says where it came from.
	Source Source
	// Age is how long ago it was stored; 0 for one that was just loaded. It is
	// true to a millisecond or so.
	Age time.Duration
	// TTL is how long it is still fresh; 0 for a stale one.
	TTL time.Duration
	// ETag is the one the loader set.
	ETag string
	// Degraded is true when Redis could not be asked; Err then says why. For a
	// stale value Err says why there is no fresh one, where that is known.
	Degraded bool
	Err      error
}

// Source says where a [Result] came from.
type Source uint8

// The sources.
const (
	// SourceNone: there was none.
	SourceNone Source = iota
	// SourceNear: the copy in this process.
	SourceNear
	// SourceRedis: Redis.
	SourceRedis
	// SourceLoad: the loader.
	SourceLoad
	// SourceStale: an old copy, because there is no fresh one.
	SourceStale
	// SourceNegative: the absence of the value is cached, or was just loaded.
	SourceNegative
)

// String returns the source in a word.
func (s Source) String() string {
	switch s {
	case SourceNone:
		return "none"
	case SourceNear:
		return "near"
	case SourceRedis:
		return "redis"
	case SourceLoad:
		return "load"
	case SourceStale:
		return "stale"
	case SourceNegative:
		return "negative"
	}
	return "unknown"
}
