package service

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// Decision is what a limit says of one request.
type Decision struct {
	// Allowed is true when the request was admitted, and counted.
	Allowed bool
	// Limit is the one that was asked for.
	Limit int
	// Remaining is how many more would be admitted now.
	Remaining int
	// Count is how many requests stand in the window, this one included when
	// it was admitted. Beside a Python writer it can exceed Limit.
	Count int
	// RetryAfter is the exact time until a request would be admitted if
	// nobody else comes; 0 when this one was.
	RetryAfter time.Duration
	// ResetAfter is the time until the window is empty.
	ResetAfter time.Duration
}

// IsRateLimited counts a request and says whether it must be refused. It is
// !Allowed of [Service.CheckRateLimit]. On an error it returns true: who lets
// requests pass when Redis is away decides that by looking at the error.
func (s *Service) IsRateLimited(ctx context.Context, key string, limit int, window time.Duration) (bool, error) {
	d, err := s.CheckRateLimit(ctx, key, limit, window)
	return err != nil || !d.Allowed, err
}

// CheckRateLimit admits at most limit (1 to 1,000,000) requests in any window
// (10 ms to 100 years, in whole microseconds) and says how it decided. It is a
// sliding window log on a sorted set, decided in one script by the clock of
// Redis. A denied request is not stored and prolongs nothing.
//
// It is exact while every writer of the key is this package. A Python original
// on the same key also stores what it denies, by its own clock: its entries
// count here until they are a window old, so a Python client that keeps trying
// fills the window for both.
//
// All callers of one key must use one window: a shorter one forgets entries
// that a longer one would still count. A failover of Redis can lose the last
// admissions.
func (s *Service) CheckRateLimit(ctx context.Context, key string, limit int, window time.Duration) (Decision, error) {
	return s.askLimit(ctx, "check", "1", key, limit, window)
}

// PeekRateLimit says what CheckRateLimit would say now, and counts nothing;
// Count and Remaining are without the request.
func (s *Service) PeekRateLimit(ctx context.Context, key string, limit int, window time.Duration) (Decision, error) {
	return s.askLimit(ctx, "peek", "0", key, limit, window)
}

// ResetRateLimit forgets the requests of a key and says whether there were
// any.
func (s *Service) ResetRateLimit(ctx context.Context, key string) (existed bool, err error) {
	if err := s.checkLimitKey(key); err != nil {
		return false, err
	}
	existed, err = s.del(ctx, s.prefix+key)
	return existed, failed("reset", TableRateLimits, err)
}

// askLimit runs the script with a verb of its own.
func (s *Service) askLimit(ctx context.Context, op, verb, key string, limit int, window time.Duration) (Decision, error) {
	if err := s.checkLimitKey(key); err != nil {
		return Decision{}, err
	}
	if limit < 1 || limit > maxLimit {
		return Decision{}, &ValidationError{Field: "limit", Message: "must be from 1 to " + strconv.Itoa(maxLimit)}
	}
	if window < minWindow || window > maxLifetime {
		return Decision{}, &ValidationError{Field: "window", Message: "must be from 10 ms to 100 years"}
	}
	m, err := s.redis.Eval(ctx, limitscript.Set, []string{s.prefix + key}, []string{
		verb, "1", strconv.Itoa(limit), strconv.FormatInt(window.Microseconds(), 10), newNonce(),
	})
	if err != nil {
		return Decision{}, failed(op, TableRateLimits, err)
	}
	reply, err := m.AsIntSlice()
	if err == nil && len(reply) != 4 {
		err = errors.New("the limit script returned an unexpected reply")
	}
	if err != nil {
		return Decision{}, failed(op, TableRateLimits, err)
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

// newNonce returns 72 random bits, which make a member unique: never a time,
// since two requests may share an instant.
func newNonce() string {
	var raw [9]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(raw[:])
}
