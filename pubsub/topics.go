package pubsub

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/madcrow-go/madcrow/internal/codec"
)

// Topics is several channels, or patterns, with one subscription and one queue.
// Messages of one channel come in order; between channels there is none. It is safe for concurrent use.
type Topics[T any] struct {
	b    *Bus
	keys []channelKey
	opt  TopicOptions[T]
}

// NewTopics makes one of at least one channel, each of 1 to 1,024 bytes. Redis
// is not asked, and the bus keeps nothing of them.
func NewTopics[T any](b *Bus, channels []string, options TopicOptions[T]) (*Topics[T], error) {
	m := modeChannel
	if options.Sharded {
		m = modeSharded
	}
	return newTopics(b, "new_topics", "channel", m, b.prefix, channels, options)
}

// NewPatterns makes one of all channels whose names match one of the patterns of
// Redis: h?llo, h*llo, h[ae]llo. A message comes once for each pattern that its
// channel matches. Reserved channels match only with Options.Reserved.
// Options.Sharded cannot be set: Redis has no patterns of sharded channels.
// Config.KeyPrefix stands before each pattern, escaped.
func NewPatterns[T any](b *Bus, patterns []string, options TopicOptions[T]) (*Topics[T], error) {
	if options.Sharded {
		return nil, fail.Argument("new_patterns", "", "Options.Sharded", "there are no patterns of sharded channels")
	}
	return newTopics(b, "new_patterns", "pattern", modePattern, escapePattern(b.prefix), patterns, options)
}

func newTopics[T any](b *Bus, op, argument string, m mode, prefix string, names []string, options TopicOptions[T]) (*Topics[T], error) {
	if len(names) == 0 {
		return nil, fail.Argument(op, "", argument, "at least one is needed")
	}
	if options.Codec == nil {
		options.Codec = codec.Default[T]()
	}
	t := &Topics[T]{b: b, opt: options}
	for _, name := range names {
		if err := b.checkPublic(op, argument, name, options.Reserved); err != nil {
			return nil, err
		}
		if key := (channelKey{m, prefix + name}); !slices.Contains(t.keys, key) {
			t.keys = append(t.keys, key)
		}
	}
	return t, nil
}

// Subscribe is [Topic.Subscribe] of all of them. EventSubscribed comes when
// each is confirmed, EventInterrupted when the first is lost, EventGap when all
// are back; in between come the messages of those that are there.
func (t *Topics[T]) Subscribe(ctx context.Context, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		how, err := subscribingOf(opts)
		if err != nil {
			yield(Event[T]{}, err)
			return
		}
		sub := newSubscriber(how.queue, how.overflow)
		sub.plain, sub.reserved = t.opt.Plain, t.opt.Reserved
		for _, key := range t.keys {
			f, err := t.b.join(key, sub)
			if err != nil {
				yield(Event[T]{}, fail.Wrap("subscribe", key.name(t.b), err))
				return
			}
			defer f.remove(sub)
		}
		t.listen(ctx, sub, yield)
	}
}

// Handle is [Topic.Handle].
func (t *Topics[T]) Handle(ctx context.Context, fn func(context.Context, Event[T]), opts ...SubscribeOption) error {
	return handle(ctx, t.Subscribe(ctx, opts...), fn)
}

func (t *Topics[T]) listen(ctx context.Context, sub *subscriber, yield func(Event[T], error) bool) {
	all := mergedState{want: len(t.keys)}
	for ctx.Err() == nil {
		it, ok, err := sub.next()
		switch {
		case ok:
			if it, ok = all.merge(it); ok && !yield(newEvent(t.b, it, t.opt), nil) {
				return
			}
			continue
		case err != nil:
			yield(Event[T]{}, fail.Wrap("subscribe", sub.endedBy(t.keys[0]).name(t.b), err))
			return
		}
		select {
		case <-sub.ready:
		case <-ctx.Done():
			return
		case <-t.b.ctx.Done():
			yield(Event[T]{}, fail.Wrap("subscribe", t.keys[0].name(t.b), ErrClosed))
			return
		}
	}
}

// mergedState merges the states of several shared subscriptions into one.
type mergedState struct {
	want, live int
	started    bool
	since      time.Time // the first loss of the next gap
}

// merge returns the event of all of them; false is none.
func (u *mergedState) merge(it item) (item, bool) {
	switch it.kind {
	case EventSubscribed, EventGap:
		u.live++
		if it.kind == EventGap && (u.since.IsZero() || it.since.Before(u.since)) {
			u.since = it.since
		}
		if u.live < u.want {
			return it, false
		}
		since := u.since
		u.since = time.Time{}
		if u.started {
			return item{kind: EventGap, since: since, until: it.until}, true
		}
		u.started = true
		return item{kind: EventSubscribed}, true
	case EventInterrupted:
		u.live--
		return it, u.started && u.live == u.want-1
	}
	return it, true
}
