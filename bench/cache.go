package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	peer "github.com/go-redis/cache/v9"
	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/contrib/codec"
	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/viccon/sturdyc"
)

// The races of the caches: a hit of one of 1,000 keys, which hold a struct of
// six fields, a text of 1 KB, or 64 KB of bytes that do not compress. Each
// checks what it gets.

// user is what an application caches most: one row of a table.
type user struct {
	ID      int64     `json:"id"`
	Name    string    `json:"name"`
	Email   string    `json:"email"`
	Active  bool      `json:"active"`
	Score   float64   `json:"score"`
	Created time.Time `json:"created"`
}

func userOf(i int) user {
	n := strconv.Itoa(i)
	return user{int64(i), "Ada Lovelace " + n, "ada." + n + "@example.com", true, 0.5 * float64(i), time.Unix(1_700_000_000+int64(i), 0).UTC()}
}

func sameUser(a, b user) bool { return a.ID == b.ID && a.Created.Equal(b.Created) }

func textOf(i int) string { return strings.Repeat(fmt.Sprintf("%04d 0123456789 ", i), 64) }

// bytesOf does not compress.
func bytesOf(i int) []byte {
	b := make([]byte, 64<<10)
	x := uint64(i)*0x9E3779B97F4A7C15 + 1
	for at := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[at] = byte(x)
	}
	return b
}

func sameBytes(a, b []byte) bool { return len(a) == len(b) && bytes.Equal(a[:32], b[:32]) }

func sameText(a, b string) bool { return len(a) == len(b) && a[:4] == b[:4] }

func cacheNearStruct(e *environment) (race, error) {
	return nearRace(e, "cache-near-struct", "a hit in this process, a struct of six fields", userOf, sameUser)
}

func cacheNear1K(e *environment) (race, error) {
	return nearRace(e, "cache-near-1k", "a hit in this process, a text of 1 KB", textOf, sameText)
}

func cacheNear64K(e *environment) (race, error) {
	return nearRace(e, "cache-near-64k", "a hit in this process, 64 KB of bytes", bytesOf, sameBytes)
}

func cacheRedisStruct(e *environment) (race, error) {
	return redisRace(e, "cache-redis-struct", "a hit in Redis, a struct of six fields", userOf, sameUser, decodeJSON[user], codec.Msgpack[user]())
}

func cacheRedis1K(e *environment) (race, error) {
	return redisRace(e, "cache-redis-1k", "a hit in Redis, a text of 1 KB", textOf, sameText,
		func(text string, v *string) error { *v = text; return nil })
}

func cacheRedis64K(e *environment) (race, error) {
	return redisRace(e, "cache-redis-64k", "a hit in Redis, 64 KB of bytes", bytesOf, sameBytes,
		func(text string, v *[]byte) error { *v = []byte(text); return nil })
}

func decodeJSON[T any](text string, v *T) error { return json.Unmarshal([]byte(text), v) }

// getter reads one of the 1,000 keys.
type getter[T any] func(ctx context.Context, key string) (T, error)

func hits[T any](e *environment, get getter[T], want func(int) T, same func(a, b T) bool) func(int) func() error {
	expected := make([]T, keys)
	for i := range expected {
		expected[i] = want(i)
	}
	return func(g int) func() error {
		ctx := context.Background()
		i := g * 37 % keys
		return func() error {
			if i++; i == keys {
				i = 0
			}
			v, err := get(ctx, e.keys[i])
			if err == nil && !same(v, expected[i]) {
				err = fmt.Errorf("another value for %s", e.keys[i])
			}
			return err
		}
	}
}

var errMiss = fmt.Errorf("a miss")

func found[T any](v T, ok bool) (T, error) {
	if !ok {
		return v, errMiss
	}
	return v, nil
}

// newCache is Madcrow's, filled, with everything read twice where it keeps
// near copies.
func newCache[T any](e *environment, name string, want func(int) T, opt cache.Options[T]) (*cache.Cache[T], error) {
	opt.TTL = time.Hour
	c, err := cache.New(e.redis, name, opt)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	for i, k := range e.keys {
		if err := c.Set(ctx, k, want(i)); err != nil {
			return nil, err
		}
		for range 2 {
			if _, err := found2(c.Get(ctx, k)); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

func found2[T any](v T, ok bool, err error) (T, error) {
	if err == nil && !ok {
		err = errMiss
	}
	return v, err
}

func (e *environment) goRedis() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: net.JoinHostPort(e.host, strconv.Itoa(e.port))})
	e.closers = append(e.closers, c.Close)
	return c
}

// peerCache is go-redis/cache, filled.
func peerCache[T any](e *environment, name string, want func(int) T, local peer.LocalCache) (getter[T], error) {
	c := peer.New(&peer.Options{Redis: e.goRedis(), LocalCache: local})
	get := func(ctx context.Context, key string) (v T, err error) {
		err = c.Get(ctx, name+key, &v)
		return v, err
	}
	for i, k := range e.keys {
		if err := c.Set(&peer.Item{Key: name + k, Value: want(i), TTL: time.Hour}); err != nil {
			return nil, err
		}
		if _, err := get(context.Background(), k); err != nil {
			return nil, err
		}
	}
	return get, nil
}

// clientSide is rueidis' own cache: what Redis sent, to be decoded by each
// read.
func clientSide[T any](e *environment, name string, decode func(string, *T) error) (getter[T], error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{net.JoinHostPort(e.host, strconv.Itoa(e.port))}, ForceSingleClient: true, CacheSizeEachConn: 512 << 20})
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, func() error { c.Close(); return nil })
	return func(ctx context.Context, key string) (v T, err error) {
		text, err := c.DoCache(ctx, c.B().Get().Key(name+key).Cache(), time.Hour).ToString()
		if err == nil {
			err = decode(text, &v)
		}
		return v, err
	}, nil
}

// plain stores the values as texts, for the bare clients.
func plain[T any](e *environment, name string, want func(int) T) error {
	for i, k := range e.keys {
		var text string
		switch v := any(want(i)).(type) {
		case string:
			text = v
		case []byte:
			text = rueidis.BinaryString(v)
		default:
			b, err := json.Marshal(v)
			if err != nil {
				return err
			}
			text = string(b)
		}
		if err := e.bare.Do(context.Background(), e.bare.B().Set().Key(name+k).Value(text).Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

func nearRace[T any](e *environment, name, what string, want func(int) T, same func(a, b T) bool) (race, error) {
	sturdy := sturdyc.New[T](10_000, 16, time.Hour, 10)
	alone := otter.Must(&otter.Options[string, T]{MaximumSize: 10_000})
	for i, k := range e.keys {
		sturdy.Set(k, want(i))
		alone.Set(k, want(i))
	}
	local, err := peerCache(e, name+":peer:", want, peer.NewTinyLFU(10_000, time.Hour))
	if err != nil {
		return race{}, err
	}
	if err := plain(e, name+":plain:", want); err != nil {
		return race{}, err
	}
	decode := decodeJSON[T]
	switch any(*new(T)).(type) {
	case string, []byte:
		decode = func(text string, v *T) error {
			switch p := any(v).(type) {
			case *string:
				*p = text
			case *[]byte:
				*p = []byte(text)
			}
			return nil
		}
	}
	bare, err := clientSide(e, name+":plain:", decode)
	if err != nil {
		return race{}, err
	}
	ours, err := newCache(e, name, want, cache.Options[T]{NearCacheBytes: 512 << 20})
	if err != nil {
		return race{}, err
	}
	never := func(context.Context) (T, error) { panic("a hit loads nothing") }
	run := func(get getter[T]) func(int) func() error { return hits(e, get, want, same) }
	return race{name: name, what: what, contestants: []contestant{
		{"sturdyc (no Redis behind it)", 0, run(func(_ context.Context, k string) (T, error) { return found(sturdy.Get(k)) })},
		{"otter v2 (no Redis behind it)", 0, run(func(_ context.Context, k string) (T, error) { return found(alone.GetIfPresent(k)) })},
		{"go-redis/cache with TinyLFU", 0, run(local)},
		{"rueidis DoCache", 0, run(bare)},
		{"madcrow Get (≤ 60 ns)", 2.5, run(func(ctx context.Context, k string) (T, error) { return found2(ours.Get(ctx, k)) })},
		{"madcrow GetOrLoad", 0, run(func(ctx context.Context, k string) (T, error) { return ours.GetOrLoad(ctx, k, never) })},
	}}, nil
}

func redisRace[T any](e *environment, name, what string, want func(int) T, same func(a, b T) bool, decode func(string, *T) error, also ...madcrow.Codec[T]) (race, error) {
	remote, err := peerCache(e, name+":peer:", want, nil)
	if err != nil {
		return race{}, err
	}
	if err := plain(e, name+":plain:", want); err != nil {
		return race{}, err
	}
	ours, err := newCache(e, name, want, cache.Options[T]{})
	if err != nil {
		return race{}, err
	}
	run := func(get getter[T]) func(int) func() error { return hits(e, get, want, same) }
	r := race{name: name, what: what, cpu: true, contestants: []contestant{
		{"go-redis/cache", 0, run(remote)},
		{"rueidis GET, decoded", 0, run(func(ctx context.Context, k string) (v T, err error) {
			text, err := e.one.Do(ctx, e.one.B().Get().Key(name+":plain:"+k).Build()).ToString()
			if err == nil {
				err = decode(text, &v)
			}
			return v, err
		})},
		{"madcrow Get", 1.8, run(func(ctx context.Context, k string) (T, error) { return found2(ours.Get(ctx, k)) })},
	}}
	for _, c := range also {
		coded, err := newCache(e, name+".coded", want, cache.Options[T]{Codec: c})
		if err != nil {
			return race{}, err
		}
		r.contestants = append(r.contestants, contestant{"madcrow Get, MessagePack", 1.8, run(func(ctx context.Context, k string) (T, error) { return found2(coded.Get(ctx, k)) })})
	}
	return r, nil
}
