package service

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow"
)

// NoLifetime is the lifetime of a key that never expires.
const NoLifetime time.Duration = -1

// GetCache returns the value of key. A missing key is ("", false, nil); a
// failure is a [*madcrow.Error]. With Options.NearCacheBytes it may come from this process.
func (s *Service) GetCache(ctx context.Context, key string) (value string, found bool, err error) {
	if err := s.checkCacheKey(key); err != nil {
		return "", false, err
	}
	if s.near != nil {
		c, err := s.near.find(ctx, key)
		return c.value, c.found, Failed("get", TableCache, err)
	}
	key = s.prefix + key
	m, err := s.redis.Do(ctx, s.redis.B().Get().Key(key).Build()).Message()
	if err == nil && !m.IsNil() {
		value, err = m.ToString()
		found = err == nil
	}
	return value, found, Failed("get", TableCache, err)
}

// Entry is what [Service.GetCacheWithTTL] found.
type Entry struct {
	Value string
	// Found is false for a missing key; the rest is then zero.
	Found bool
	// TTL is the lifetime that is left, or [NoLifetime].
	TTL time.Duration
}

// GetCacheWithTTL returns the value of key and its lifetime, in one round
// trip.
func (s *Service) GetCacheWithTTL(ctx context.Context, key string) (Entry, error) {
	if err := s.checkCacheKey(key); err != nil {
		return Entry{}, err
	}
	if s.near != nil {
		c, err := s.near.find(ctx, key)
		return c.entry(monotonic()), Failed("get", TableCache, err)
	}
	key = s.prefix + key
	res, err := s.redis.DoMulti(ctx, s.redis.B().Get().Key(key).Build(), s.redis.B().Pttl().Key(key).Build())
	if err != nil {
		return Entry{}, Failed("get", TableCache, err)
	}
	if res[0].IsNil() {
		return Entry{}, nil
	}
	value, _, err := res[0].Text()
	if err != nil {
		return Entry{}, Failed("get", TableCache, err)
	}
	ms, _, err := res[1].Int()
	if err != nil {
		return Entry{}, Failed("get", TableCache, err)
	}
	// The key may have expired between the two commands: then it was found with
	// a TTL of 0.
	ttl, _ := lifetime(ms)
	return Entry{Value: value, Found: true, TTL: ttl}, nil
}

// SetCache stores value under key for ttl; 0 means without a lifetime. An
// error whose madcrow.Error has OutcomeUnknown may have stored it.
func (s *Service) SetCache(ctx context.Context, key, value string, ttl time.Duration) error {
	if err := s.checkCacheKey(key); err != nil {
		return err
	}
	if ttl != 0 {
		if err := checkLifetime(ttl); err != nil {
			return err
		}
	}
	return Failed("set", TableCache, s.set(ctx, s.prefix+key, value, ttl))
}

// set stores a string. Whole seconds are sent as SETEX, as FastAPI Madcrow does.
func (s *Service) set(ctx context.Context, key, value string, ttl time.Duration) error {
	s.near.changed(key)       // discards reads that are under way
	defer s.near.changed(key) // and reads that began before the reply
	var cmd madcrow.Command
	switch b := s.redis.B(); {
	case ttl == 0:
		cmd = b.Set().Key(key).Value(value).Build()
	case ttl%time.Second == 0:
		cmd = b.Setex().Key(key).Seconds(int64(ttl / time.Second)).Value(value).Build()
	default:
		cmd = b.Psetex().Key(key).Milliseconds(ttl.Milliseconds()).Value(value).Build()
	}
	return s.redis.Do(ctx, cmd).Err()
}

// DeleteCache removes key and reports whether it existed.
func (s *Service) DeleteCache(ctx context.Context, key string) (existed bool, err error) {
	if err := s.checkCacheKey(key); err != nil {
		return false, err
	}
	existed, err = s.del(ctx, s.prefix+key)
	return existed, Failed("delete", TableCache, err)
}

func (s *Service) del(ctx context.Context, key string) (bool, error) {
	s.near.changed(key) // as in set
	defer s.near.changed(key)
	n, err := s.integer(ctx, s.redis.B().Del().Key(key).Build())
	return n > 0, err
}

// Exists reports whether key exists, of any type.
func (s *Service) Exists(ctx context.Context, key string) (bool, error) {
	if err := s.checkCacheKey(key); err != nil {
		return false, err
	}
	key = s.prefix + key
	n, err := s.integer(ctx, s.redis.B().Exists().Key(key).Build())
	return n > 0, Failed("exists", TableCache, err)
}

// TTL returns the lifetime that key has left: [NoLifetime] when it never
// expires, found false when it is not there.
func (s *Service) TTL(ctx context.Context, key string) (ttl time.Duration, found bool, err error) {
	if err := s.checkCacheKey(key); err != nil {
		return 0, false, err
	}
	key = s.prefix + key
	ms, err := s.integer(ctx, s.redis.B().Pttl().Key(key).Build())
	if err != nil {
		return 0, false, Failed("ttl", TableCache, err)
	}
	ttl, found = lifetime(ms)
	return ttl, found, nil
}

// lifetime reads the reply of PTTL: -1 is none, -2 a missing key.
func lifetime(ms int64) (time.Duration, bool) {
	switch {
	case ms >= 0:
		return time.Duration(ms) * time.Millisecond, true
	case ms == -1:
		return NoLifetime, true
	}
	return 0, false
}

func (s *Service) integer(ctx context.Context, cmd madcrow.Command) (int64, error) {
	n, _, err := s.redis.Do(ctx, cmd).Int()
	return n, err
}
