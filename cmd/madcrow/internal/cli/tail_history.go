package cli

import (
	"context"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/pubsub"
)

// heard is an event of one of several subscriptions, or its end with an error.
type heard struct {
	event pubsub.Event[string]
	err   error
}

// listener hears several subscriptions as one.
type listener struct {
	r      *madcrow.Redis
	bus    *pubsub.Bus
	events chan heard
	all    sync.WaitGroup
}

// join hears a subscription until ctx ends.
func (l *listener) join(ctx context.Context, subscription iter.Seq2[pubsub.Event[string], error]) {
	l.all.Go(func() {
		for e, err := range subscription {
			select {
			case l.events <- heard{e, err}:
			case <-ctx.Done():
				return
			}
		}
	})
}

// joinTopic hears a topic with a history after a position. The subscription of the
// channels says already when nothing is heard.
func (l *listener) joinTopic(ctx context.Context, name string, after pubsub.Position) error {
	topic, err := pubsub.NewRecoverable(l.bus, name, pubsub.RecoverableOptions[string]{})
	if err != nil {
		return err
	}
	l.join(ctx, func(yield func(pubsub.Event[string], error) bool) {
		for e, err := range topic.Subscribe(ctx, after, pubsub.WithQueue(100_000)) {
			if err == nil && e.Kind != pubsub.EventMessage && e.Kind != pubsub.EventHistoryLost {
				continue
			}
			e.Channel = name
			if !yield(e, err) {
				return
			}
		}
	})
	return nil
}

// topicsEvery is how often it is looked for a topic that had no history before.
const topicsEvery = time.Second

// joinNamed hears the topics of these names that have a history, now or later, and
// says so on w.
func (l *listener) joinNamed(ctx context.Context, w io.Writer, names []string, history int) error {
	var missing []string
	for _, name := range names {
		there, err := l.joinFrom(ctx, w, name, history)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		missing = append(missing, name)
		if history > 0 {
			_, _ = fmt.Fprintf(w, "madcrow: %v\n", noSuch(ctx, l.r, inventory.Topics, "topic with a history", name))
		}
	}
	l.all.Go(func() { l.awaitTopics(ctx, missing) })
	return nil
}

// awaitTopics hears the topics from their beginning, when they have one.
func (l *listener) awaitTopics(ctx context.Context, names []string) {
	tick := time.NewTicker(topicsEvery)
	defer tick.Stop()
	for len(names) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var missing []string
		for _, name := range names {
			_, _, there, err := l.lastOf(ctx, name, 0)
			if err == nil && there && l.joinTopic(ctx, name, pubsub.Beginning) == nil {
				continue
			}
			missing = append(missing, name)
		}
		names = missing
	}
}

// joinMatching hears the topics with a history that match a pattern now.
func (l *listener) joinMatching(ctx context.Context, w io.Writer, patterns []string, history int) error {
	inv, err := find(ctx, l.r, inventory.Topics)
	if err != nil {
		return err
	}
	for _, t := range inv.Topics {
		for _, pattern := range patterns {
			if !t.Hashed && globMatches(pattern, t.Name) {
				if _, err := l.joinFrom(ctx, w, t.Name, history); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// joinFrom hears a topic with a history, if there is one, from its last messages on.
func (l *listener) joinFrom(ctx context.Context, w io.Writer, name string, history int) (there bool, err error) {
	after, kept, there, err := l.lastOf(ctx, name, history)
	if err != nil || !there {
		return false, err
	}
	_, _ = fmt.Fprintf(w, "madcrow: %s is a topic with a history of %s\n", oneLine(name), number(kept, "message"))
	return true, l.joinTopic(ctx, name, after)
}

// lastOf is the position before the last messages of a topic, so many as history,
// and how many there are.
func (l *listener) lastOf(ctx context.Context, name string, history int) (after pubsub.Position, kept int64, there bool, err error) {
	base := l.r.Config().KeyPrefix + keys.Typed + "topic:{" + keys.Encode(name) + "}:"
	res, err := l.r.DoMulti(ctx,
		l.r.B().Hmget().Key(base+"meta").Field("e", "n", "x").Build(), l.r.B().Xlen().Key(base+"history").Build(),
		l.r.B().Xrevrange().Key(base+"history").End("+").Start("-").Count(int64(max(history, 1))).Build(),
	)
	if err != nil {
		return after, 0, false, err
	}
	about, _ := res[0].Message()
	meta, err := about.ToArray()
	if err != nil || len(meta) != 3 || meta[0].IsNil() {
		return after, 0, false, err
	}
	after.Epoch, _ = meta[0].ToString()
	last, _ := meta[1].ToString()
	after.Offset, _ = strconv.ParseUint(last, 10, 63)
	after.Nonce, _ = meta[2].ToString()
	kept, _, _ = res[1].Int()
	newest, _ := res[2].Message()
	entries, err := newest.AsXRange()
	if err != nil {
		return after, kept, true, err
	}
	if history > 0 && len(entries) > 0 {
		oldest := entries[len(entries)-1]
		id, _, _ := strings.Cut(oldest.ID, "-")
		offset, _ := strconv.ParseUint(id, 10, 63)
		after.Offset, after.Nonce = max(offset, 1)-1, oldest.FieldValues["p"]
	}
	if after.Offset == 0 {
		after = pubsub.Beginning
	}
	return after, kept, true, nil
}

// globMatches says whether a pattern of Redis matches a whole name.
func globMatches(pattern, name string) bool {
	var b strings.Builder
	b.WriteString("(?s)^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		case '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 0 {
				return false
			}
			b.WriteString(pattern[i : i+end+1])
			i += end
		case '\\':
			if i+1 < len(pattern) {
				i++
			}
			fallthrough
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	ok, err := regexp.MatchString(b.String()+"$", name)
	return ok && err == nil
}
