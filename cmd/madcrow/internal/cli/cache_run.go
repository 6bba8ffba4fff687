package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/service"
)

// Names of codecs.
const (
	codecJSON  = "json"
	codecText  = "text"
	codecBytes = "bytes"
)

// rawAnswer is what get and ttl print of a plain string as JSON.
type rawAnswer struct {
	Key   string `json:"key"`
	Found bool   `json:"found"`
	valueAnswer
	// TTL is null without a lifetime, and where there is no value.
	TTL *float64 `json:"ttl_seconds"`
}

// valueAnswer is a value: one that is no UTF-8 text would not survive JSON.
type valueAnswer struct {
	Value  *string `json:"value,omitempty"`
	Base64 string  `json:"value_base64,omitempty"`
}

func (v *valueAnswer) set(value string) {
	if utf8.ValidString(value) {
		v.Value = &value
	} else {
		v.Base64 = base64.StdEncoding.EncodeToString([]byte(value))
	}
}

func seconds(d time.Duration) *float64 {
	if d < 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}

// missing prints that there is no such key: with text on standard error, so that
// a script that reads the value reads none.
func (o *cacheOptions) missing(c *cobra.Command, answer any) error {
	if o.output == "json" {
		if err := o.done(c, "", answer); err != nil {
			return err
		}
	} else {
		c.PrintErrln("not found")
	}
	return errMiss
}

// missingTyped is missing of a typed cache: it says where there is no such cache.
func (o *cacheOptions) missingTyped(ctx context.Context, c *cobra.Command, r *madcrow.Redis, answer any) error {
	absent := o.noCache(ctx, r)
	if absent == nil {
		return o.missing(c, answer)
	}
	if o.output == "json" && isAnswer(absent) {
		if err := o.done(c, "", answer); err != nil {
			return err
		}
	}
	return absent
}

func getRaw(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	e, err := service.New(r, service.Options{}).GetCacheWithTTL(ctx, args[0])
	if err != nil {
		return err
	}
	answer := rawAnswer{Key: args[0], Found: e.Found}
	if !e.Found {
		return o.missing(c, answer)
	}
	answer.set(e.Value)
	answer.TTL = seconds(e.TTL)
	return o.done(c, e.Value, answer)
}

func ttlRaw(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	ttl, found, err := service.New(r, service.Options{}).TTL(ctx, args[0])
	if err != nil {
		return err
	}
	answer := rawAnswer{Key: args[0], Found: found}
	if !found {
		return o.missing(c, answer)
	}
	answer.TTL = seconds(ttl)
	return o.done(c, lifeText(ttl), answer)
}

func lifeText(d time.Duration) string {
	if d < 0 {
		return "no lifetime"
	}
	return short(d).String()
}

func setRaw(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	ttl := time.Duration(o.ttl)
	if err := service.New(r, service.Options{}).SetCache(ctx, args[0], args[1], ttl); err != nil {
		return err
	}
	answer := map[string]any{"key": args[0], "stored": true, "ttl_seconds": nil}
	if ttl > 0 {
		answer["ttl_seconds"] = ttl.Seconds()
	}
	return o.done(c, "stored", answer)
}

func delRaw(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	existed, err := service.New(r, service.Options{}).DeleteCache(ctx, args[0])
	if err != nil {
		return err
	}
	return o.deleted(c, existed, map[string]any{"key": args[0], "deleted": existed})
}

func (o *cacheOptions) deleted(c *cobra.Command, existed bool, answer any) error {
	if !existed {
		return o.missing(c, answer)
	}
	return o.done(c, "deleted", answer)
}

// asFailure says plainly that nothing was done: this program does not wait until
// Redis is back.
func asFailure(err error) error {
	var outer, cause *madcrow.Error
	if errors.Is(err, cache.ErrQueued) && errors.As(err, &outer) && errors.As(outer.Err, &cause) {
		return cause
	}
	return err
}

// life is the lifetime of a typed entry: each has one.
func (o *cacheOptions) life() time.Duration {
	if o.ttl == 0 {
		return 5 * time.Minute
	}
	return time.Duration(o.ttl)
}

// with makes the typed cache that --name names, and closes it again. What it
// writes has the lifetime that was asked for.
func with[T any](ctx context.Context, r *madcrow.Redis, o *cacheOptions, codec madcrow.Codec[T], work func(*cache.Cache[T]) error) error {
	name := o.name
	if name == "" {
		name = "cli" // for tags, which belong to all caches
	}
	opt := cache.Options[T]{Codec: codec, TTL: o.life(), StaleTTL: time.Duration(o.staleFor), Jitter: -1}
	all, err := cache.New(r, name, opt)
	if err != nil {
		return err
	}
	err = asFailure(work(all))
	_ = all.Close(ctx)
	return err
}

func setTyped(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) (err error) {
	key, value, tags := args[0], args[1], cache.WithTags(o.tags...)
	switch o.codec {
	case codecJSON:
		if !json.Valid([]byte(value)) {
			return usageError{errors.New("VALUE is not valid JSON; for a cache of strings give --codec text")}
		}
		err = with(ctx, r, o, madcrow.JSON[json.RawMessage](), func(all *cache.Cache[json.RawMessage]) error {
			return all.Set(ctx, key, json.RawMessage(value), tags)
		})
	case codecText:
		err = with(ctx, r, o, madcrow.Text(), func(all *cache.Cache[string]) error { return all.Set(ctx, key, value, tags) })
	default:
		err = with(ctx, r, o, madcrow.Bytes(), func(all *cache.Cache[[]byte]) error { return all.Set(ctx, key, []byte(value), tags) })
	}
	if err != nil {
		return err
	}
	return o.done(c, "stored", map[string]any{"key": key, "name": o.name, "stored": true, "ttl_seconds": o.life().Seconds()})
}

func delTyped(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	e, found, err := cache.Inspect(ctx, r, o.name, args[0])
	if e := (*madcrow.Error)(nil); err != nil && (!errors.As(err, &e) || e.Kind != 0) {
		return err // it was not read
	}
	existed := err != nil || found && !e.Removed // what is no entry is removed too
	err = with(ctx, r, o, nil, func(all *cache.Cache[[]byte]) error { return all.Delete(ctx, args[0]) })
	if err != nil {
		return err
	}
	answer := map[string]any{"key": args[0], "name": o.name, "deleted": existed}
	if !existed {
		return o.missingTyped(ctx, c, r, answer)
	}
	return o.done(c, "deleted", answer)
}

func changeTags(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, tags []string) error {
	var unknown []string
	for _, tag := range tags {
		there, err := exists(ctx, r, r.Config().KeyPrefix+keys.Typed+"tag:{"+keys.Encode(tag)+"}")
		if err != nil {
			return err
		}
		if !there {
			unknown = append(unknown, tag)
		}
	}
	err := with(ctx, r, o, nil, func(all *cache.Cache[[]byte]) error {
		if o.verb == "expire" {
			return all.ExpireTag(ctx, tags...)
		}
		return all.DeleteTag(ctx, tags...)
	})
	if err != nil {
		return err
	}
	done := o.verb + "d"
	if len(unknown) == 0 {
		return o.done(c, done, map[string]any{"tags": tags, done: true})
	}
	if o.output == "json" {
		if err := o.done(c, "", map[string]any{"tags": tags, done: len(unknown) < len(tags), "unknown": unknown}); err != nil {
			return err
		}
	}
	return notThere{"no entry has the tag " + oneLine(strings.Join(unknown, ", "))}
}

// exists says whether there is a key.
func exists(ctx context.Context, r *madcrow.Redis, key string) (bool, error) {
	n, _, err := r.Do(ctx, r.B().Exists().Key(key).Build()).Int()
	return n > 0, err
}

// noCache says that there is no cache of the name, where it never had an entry; nil
// otherwise.
func (o *cacheOptions) noCache(ctx context.Context, r *madcrow.Redis) error {
	if there, err := exists(ctx, r, r.Config().KeyPrefix+keys.Typed+"cache:"+o.name+":gen"); there || err != nil {
		return err
	}
	inv, err := find(ctx, r, inventory.Caches)
	if err != nil || slices.Contains(inv.Names(inventory.Caches), o.name) {
		return err
	}
	return noSuch(ctx, r, inventory.Caches, "cache", o.name)
}

func clearTyped(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, _ []string) error {
	if err := o.noCache(ctx, r); err != nil {
		return err
	}
	err := with(ctx, r, o, nil, func(all *cache.Cache[[]byte]) error { return all.Clear(ctx) })
	if err != nil {
		return err
	}
	return o.done(c, "cleared", map[string]any{"name": o.name, "cleared": true})
}
