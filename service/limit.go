package service

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// Decision is the decision of a rate limit about one request.
type Decision struct {
	// Allowed is true if the request was admitted and counted.
	Allowed bool
	// Limit is the limit of the call.
	Limit int
	// Remaining is how many more would be admitted now.
	Remaining int
	// Count is how many requests are in the window, including this one if it was
	// admitted. Beside a Python writer it can exceed Limit.
	Count int
	// RetryAfter is the exact time until a request would be admitted if there are
	// no others; 0 if this one was admitted.
	RetryAfter time.Duration
	// ResetAfter is the time until the window is empty.
	ResetAfter time.Duration
}

// IsRateLimited counts a request and reports whether it must be refused: !Allowed
// of [Service.CheckRateLimit]. On an error it returns true; a caller that admits
// requests while Redis is unavailable checks the error.
func (s *Service) IsRateLimited(ctx context.Context, key string, limit int, window time.Duration) (bool, error) {
	d, err := s.CheckRateLimit(ctx, key, limit, window)
	return err != nil || !d.Allowed, err
}

// CheckRateLimit admits at most limit (1 to 1,000,000) requests in any window
// (10 ms to 100 years, in whole microseconds) and returns its decision. It is a
// sliding window log on a sorted set, decided in one script by the clock of
// Redis. A denied request is not stored and does not extend the window.
//
// The limit is exact while this package alone writes the key. FastAPI Madcrow on
// the same key also stores the requests that it denies, by its own clock. They
// count here until they are a window old, so a Python client that keeps trying
// fills the window for both.
//
// All callers of one key must use the same window: a shorter one removes entries
// that a longer one would still count. A failover of Redis can lose the last
// admissions.
func (s *Service) CheckRateLimit(ctx context.Context, key string, limit int, window time.Duration) (Decision, error) {
	return s.evalLimit(ctx, "check", "1", key, limit, window)
}

// PeekRateLimit returns the decision of a CheckRateLimit made now, without counting
// the request: Count and Remaining do not include it.
func (s *Service) PeekRateLimit(ctx context.Context, key string, limit int, window time.Duration) (Decision, error) {
	return s.evalLimit(ctx, "peek", "0", key, limit, window)
}

// ResetRateLimit removes the requests of a key and reports whether there were any.
func (s *Service) ResetRateLimit(ctx context.Context, key string) (existed bool, err error) {
	if err := s.checkLimitKey(key); err != nil {
		return false, err
	}
	existed, err = s.del(ctx, s.prefix+key)
	return existed, Failed("reset", TableRateLimits, err)
}

// evalLimit runs the script: verb "1" counts the request, "0" does not.
func (s *Service) evalLimit(ctx context.Context, op, verb, key string, limit int, window time.Duration) (Decision, error) {
	if err := s.checkLimitKey(key); err != nil {
		return Decision{}, err
	}
	if limit < 1 || limit > maxLimit {
		return Decision{}, invalid("limit", "must be from 1 to "+strconv.Itoa(maxLimit))
	}
	if window < minWindow || window > maxLifetime {
		return Decision{}, invalid("window", "must be from 10 ms to 100 years")
	}
	m, err := s.redis.Eval(ctx, limitscript.Set, []string{s.prefix + key}, []string{
		verb, "1", strconv.Itoa(limit), strconv.FormatInt(window.Microseconds(), 10), keys.Nonce(),
	}).Message()
	if err != nil {
		return Decision{}, Failed(op, TableRateLimits, err)
	}
	reply, err := m.AsIntSlice()
	if err == nil && len(reply) != 4 {
		err = errors.New("the limit script returned an unexpected reply")
	}
	if err != nil {
		return Decision{}, Failed(op, TableRateLimits, err)
	}
	d := Decision{
		Allowed:    reply[0] == 0,
		Limit:      limit,
		Count:      int(reply[1]),
		Remaining:  max(0, limit-int(reply[1])),
		RetryAfter: time.Duration(reply[0]) * time.Microsecond,
		ResetAfter: time.Duration(reply[2]) * time.Microsecond,
	}
	return d, nil
}
