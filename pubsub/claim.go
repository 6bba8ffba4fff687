package pubsub

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

const claimPage = 100

// reclaim takes over what is due: what failed a while ago, here or elsewhere,
// and what processes had that went away. It says how many slots are left.
func (w *work[T]) reclaim(ctx, own context.Context, free int) (left int, err error) {
	for from := "-"; ctx.Err() == nil; {
		list, err := w.pending(ctx, from, w.opt.ClaimAfter, "")
		if err != nil {
			if noGroup(err) {
				err = nil // the read makes it
			}
			return free, err
		}
		for _, p := range list {
			from = "(" + p.id
			switch {
			case ctx.Err() != nil:
				return free, nil
			case w.has(p.id):
			case p.deliveries >= int64(w.opt.MaxDeliveries):
				_ = w.putAside(ctx, p.id, p.deliveries, "", w.opt.ClaimAfter, "") // whoever looks next does this again
			case free == 0:
				w.looks = time.Time{} // there is more
				return 0, nil
			default:
				taken, err := w.claim(own, p)
				if err != nil {
					return free, err
				}
				if taken {
					free--
					w.s.b.event("claimed", 1)
				}
			}
		}
		if len(list) < claimPage {
			break
		}
	}
	return free, nil
}

type pendingMessage struct {
	id         string
	deliveries int64
}

// pending lists messages of the group that are not done, of one consumer or of
// all.
func (w *work[T]) pending(ctx context.Context, from string, idle time.Duration, consumer string) (list []pendingMessage, err error) {
	m, err := w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		page := b.Xpending().Key(w.s.log()).Group(w.group).Idle(idle.Milliseconds()).Start(from).End("+").Count(claimPage)
		if consumer != "" {
			return page.Consumer(consumer).Build()
		}
		return page.Build()
	})
	if err != nil {
		return nil, tooOld(err)
	}
	entries, err := m.ToArray()
	if err != nil {
		return nil, errors.Join(errReply, err)
	}
	for i := range entries {
		fields, err := entries[i].ToArray()
		if err != nil || len(fields) != 4 {
			return nil, errors.Join(errReply, err)
		}
		id, err1 := fields[0].ToString()
		n, err2 := fields[3].AsInt64()
		if err := errors.Join(err1, err2); err != nil {
			return nil, errors.Join(errReply, err)
		}
		list = append(list, pendingMessage{id, n})
	}
	return list, nil
}

// has says whether a message is being worked on here, or waits for its next
// try.
func (w *work[T]) has(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, held := w.held[id]
	_, resting := w.resting[id]
	return held || resting
}

// claim takes a message over, if it still is idle for long enough, and works on
// it in a slot that is taken.
func (w *work[T]) claim(own context.Context, p pendingMessage) (taken bool, err error) {
	return w.takeOver(own, p.id, w.opt.ClaimAfter, "", p.deliveries+1, "")
}

// takeOver claims a message that was idle for so long, of one consumer or of any,
// and works on it.
func (w *work[T]) takeOver(own context.Context, id string, idle time.Duration, from string, deliveries int64, note string) (taken bool, _ error) {
	m, err := w.s.b.r.Eval(own, scriptClaim, []string{w.s.log(), w.s.reason(w.group), w.s.lost()},
		[]string{w.group, w.me, id, milliseconds(idle), from, note})
	if err != nil {
		w.mayStray(err)
		return false, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 2 {
		return false, errors.Join(errReply, err)
	}
	if gone, _ := list[0].AsInt64(); gone == 1 {
		w.s.b.event("trimmed", 1)
		w.sayLost(1)
		return false, nil
	}
	entries, err := list[1].AsXRange()
	if err == nil && len(entries) == 1 {
		w.start(own, entries[0], deliveries)
		return true, nil
	}
	return false, nil // somebody else has it
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// mayStray notes that a reply was lost that may have given us messages. A read
// of a connection that died unnoticed may even take some later.
func (w *work[T]) mayStray(err error) {
	var e *madcrow.Error
	if errors.As(err, &e) && e.Outcome == madcrow.OutcomeUnknown {
		w.strays = time.Now().Add(2 * readBlock)
	}
}

// adopt works on messages that are ours and that we never saw. It is no further
// delivery: nobody has tried them.
func (w *work[T]) adopt(own context.Context, free int) (left int, err error) {
	for from := "-"; free > 0; {
		list, err := w.pending(own, from, 0, w.me)
		if err != nil {
			if noGroup(err) {
				err = nil
			}
			return free, err
		}
		for _, p := range list {
			from = "(" + p.id
			if free == 0 || w.has(p.id) {
				continue
			}
			taken, err := w.takeOver(own, p.id, 0, w.me, p.deliveries, strconv.FormatInt(p.deliveries, 10))
			if err != nil {
				return free, err
			}
			if taken {
				free--
				w.s.b.event("adopted", 1)
			}
		}
		if len(list) < claimPage {
			break
		}
	}
	return free, nil
}

// keepAlive shows that what is worked on here is worked on.
func (w *work[T]) keepAlive(ctx context.Context) {
	tick := time.NewTicker(w.opt.ClaimAfter / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		w.beat.Lock()
		w.mu.Lock()
		ids := make([]string, 0, len(w.held))
		for id, gone := range w.held {
			if !gone {
				ids = append(ids, id)
			}
		}
		w.mu.Unlock()
		for part := range slices.Chunk(ids, claimPage) {
			w.noteGone(w.keep(ctx, 0, "", part...))
		}
		w.beat.Unlock()
	}
}

// noteGone notes which of the messages in hand MaxLen overtook. What becomes of one
// is told when its try is over: a failure then is the last one.
func (w *work[T]) noteGone(ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if _, held := w.held[id]; held {
			w.held[id] = true
		}
	}
}

// keep claims messages anew, as idle for so long, that are still ours; and notes
// why they failed, if they did. It returns those that are in the stream no more.
func (w *work[T]) keep(ctx context.Context, idle time.Duration, why string, ids ...string) (gone []string) {
	args := append([]string{w.group, w.me, milliseconds(idle), why}, ids...)
	m, err := w.s.b.r.Eval(ctx, scriptKeep, []string{w.s.log(), w.s.reason(w.group), w.s.lost()}, args)
	if err == nil {
		gone, _ = m.AsStrSlice()
	}
	return gone
}

// Consumers of processes that crashed are removed. One that lives, and got no
// message for so long, is made again by its next one.
var (
	sweepEvery   = 10 * time.Minute
	consumerIdle = time.Hour
)

// sweep removes the consumers that were left behind, with nothing pending.
func (w *work[T]) sweep(ctx context.Context) {
	m, err := w.s.b.r.Eval(ctx, scriptConsumers, []string{w.s.log()}, []string{w.group, milliseconds(consumerIdle)})
	if n, _ := m.AsInt64(); err == nil && n > 0 {
		w.s.b.event("consumers_removed", int(n))
	}
}

// leave removes this consumer, if nothing of its is pending. A read that still
// waits in Redis may take a message for it at any moment.
func (w *work[T]) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.tidy(ctx)
	_, _ = w.s.b.r.Eval(ctx, scriptLeave, []string{w.s.log()}, []string{w.group, w.me})
}
