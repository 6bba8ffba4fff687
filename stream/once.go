package stream

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// Once says whether this is the first call for a key within ttl (1 ms to a
// year), in all processes: for a worker that must not do a message again. Call
// it with the message's id, or better with an id of the subject itself, before
// the effect that must happen once; when that effect fails, call [Forget]. All
// streams share the keys.
func Once(ctx context.Context, r *madcrow.Redis, key string, ttl time.Duration) (first bool, err error) {
	if key == "" {
		return false, fail.Argument("once", "", "key", "must not be empty")
	}
	if ttl < time.Millisecond || ttl > 366*24*time.Hour {
		return false, fail.Argument("once", "", "ttl", "must be from 1ms to a year")
	}
	k := onceKey(r, key)
	m, err := r.Do(ctx, r.B().Set().Key(k).Value("1").Nx().PxMilliseconds(ttl.Milliseconds()).Build()).Message()
	if err != nil {
		return false, fail.Wrap("once", "", err)
	}
	return !m.IsNil(), nil
}

// Forget lets [Once] return true again for a key.
func Forget(ctx context.Context, r *madcrow.Redis, key string) error {
	k := onceKey(r, key)
	err := r.Do(ctx, r.B().Del().Key(k).Build()).Err()
	return fail.Wrap("forget", "", err)
}

func onceKey(r *madcrow.Redis, key string) string {
	return r.Config().KeyPrefix + "m1:once:{" + keys.Encode(key) + "}"
}
