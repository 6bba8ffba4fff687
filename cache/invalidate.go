package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow"
)

// DeleteTag removes every entry of a tag, at once, whatever their number: none
// of them is served again, not even as a stale one. Entries of other caches on
// the same Redis and prefix that have the tag go too.
func (c *Cache[T]) DeleteTag(ctx context.Context, tags ...string) error {
	return c.changeTags(ctx, "delete tag", tagDelete, tags)
}

// ExpireTag makes every entry of a tag stale.
func (c *Cache[T]) ExpireTag(ctx context.Context, tags ...string) error {
	return c.changeTags(ctx, "expire tag", tagExpire, tags)
}

// Clear removes every entry of the cache, at once, whatever their number.
func (c *Cache[T]) Clear(ctx context.Context) error {
	return c.changeTag(ctx, "clear", tagDelete, c.tags.whole)
}

func (c *Cache[T]) changeTags(ctx context.Context, op, how string, tags []string) error {
	if err := checkTags(c.name, tags); err != nil {
		return err
	}
	var errs []error
	for _, name := range tags {
		errs = append(errs, c.changeTag(ctx, op, how, c.tags.state(name)))
	}
	return errors.Join(errs...)
}

func (c *Cache[T]) changeTag(ctx context.Context, op, how string, s *tagState) error {
	if c.over.Load() {
		return c.failed(op, ErrClosed)
	}
	err := changeTag(ctx, c.registry, s.key, how)
	if err != nil {
		if !c.removals.retryable(err) {
			return c.failed(op, err)
		}
		c.removals.addTag(s.key, how)
		c.eventOf(ctx, madcrow.EventCacheQueued, err)
		return c.failed(op, fmt.Errorf("%w: %w", ErrQueued, err))
	}
	return nil
}

// dropTags removes tags themselves: what has one of them is gone, as after
// DeleteTag, and nothing stays in Redis. It takes one round trip for each node.
func (c *Cache[T]) dropTags(ctx context.Context, names []string) error {
	const op = "delete"
	if c.over.Load() {
		return c.failed(op, ErrClosed)
	}
	tagKeys := make([]string, len(names))
	for i, name := range names {
		tagKeys[i] = c.tags.state(name).key
		c.registry.tagChanges(tagKeys[i])
	}
	cmds := make([]madcrow.Command, len(tagKeys))
	for i, key := range tagKeys {
		cmds[i] = c.r.B().Del().Key(key).Build()
	}
	results, err := c.r.DoMulti(ctx, cmds...)
	var errs []error
	for i, key := range tagKeys {
		bad := err
		if len(results) == len(tagKeys) {
			bad = results[i].Err()
		}
		c.registry.tagChanges(key)
		switch {
		case bad == nil:
			c.removals.pendingRemovals.discard(key)
		case !c.removals.retryable(bad):
			errs = append(errs, c.failed(op, bad))
		default:
			c.removals.add(key, c.tags.whole.key)
			c.registry.tagChanges(key)
			c.eventOf(ctx, madcrow.EventCacheQueued, bad)
			errs = append(errs, c.failed(op, fmt.Errorf("%w: %w", ErrQueued, bad)))
		}
	}
	return errors.Join(errs...)
}

// queue notes that the value of a key must go when Redis is back. An error that
// waiting does not mend is returned as it is.
func (c *Cache[T]) queue(ctx context.Context, op, encKey string, err error) error {
	if !c.removals.retryable(err) {
		return c.failed(op, err)
	}
	c.removals.add(c.valueKey(encKey), c.tags.whole.key)
	c.changing(encKey)
	c.eventOf(ctx, madcrow.EventCacheQueued, err)
	return c.failed(op, fmt.Errorf("%w: %w", ErrQueued, err))
}
