package madcrow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// txTries bounds how often a transaction is tried when others keep changing
// the watched keys.
const txTries = 32

// Tx is one try of a transaction. It is valid inside the function given to
// [Redis.Tx] only, and not for concurrent use.
type Tx struct {
	r        *Redis
	n        *node
	conn     *dedicatedConn
	redirect redirect  // where a redirection led
	next     *redirect // where the next try goes
	ctx      context.Context
	queue    []func(Builder) Command
}

// Tx runs fn between WATCH and EXEC: fn reads with [Tx.Do] and queues writes
// with [Tx.Queue], which are applied together, or not at all when somebody
// changed one of keys in between. Then fn is called again, on fresh reads, up
// to 32 times; after that the error is [ErrConflict]. It returns the replies
// to the queued commands.
//
// fn must be safe to repeat. An error of fn ends it: nothing is applied, and
// the error is returned as it is. All tries together end by ctx's deadline or
// Config.CommandTimeout, whichever is sooner. When EXEC was sent and no reply
// came the outcome is [OutcomeUnknown]. A transaction has a connection of its
// own and takes 2 round trips and those of fn; a script ([Redis.Eval]) takes
// one. In a cluster it needs at least one key, and all that it touches must be in
// the slot of the first.
func (r *Redis) Tx(ctx context.Context, keys []string, fn func(*Tx) error) ([]Message, error) {
	start := clock.Now()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CommandTimeout)
	defer cancel()
	r.calls.Add(1)
	defer r.calls.Add(-1)
	msgs, tries, err := r.transact(ctx, keys, fn)
	if e, ok := err.(*fault.Error); ok { //nolint:errorlint // made here; an error of fn is returned as it is
		err = publicError(e)
	}
	if r.rec != nil {
		var kind Kind
		if e := (*Error)(nil); errors.As(err, &e) {
			kind = e.Kind
		}
		r.recordKind("TX", len(msgs), start, tries, kind)
	}
	return msgs, err
}

func (r *Redis) transact(ctx context.Context, keys []string, fn func(*Tx) error) ([]Message, int, error) {
	var next redirect
	failures, waits := 0, 0
	for try := 0; try < txTries; try++ {
		msgs, again, err := r.tryTx(ctx, keys, fn, &next)
		if !again {
			return msgs, try, err
		}
		if e := (*fault.Error)(nil); errors.As(err, &e) && e.Later {
			if !pause(ctx, waits, true) {
				return nil, try, err
			}
			waits++
			try-- // it is no conflict, and may take as long as the deadline allows
			continue
		}
		if err != nil {
			if failures++; failures >= maxTries || ctx.Err() != nil {
				return nil, try, err
			}
		}
		select {
		case <-time.After(rand.N(time.Duration(min(try+1, 8)) * time.Millisecond)):
		case <-ctx.Done():
			if fault.ContextKind(ctx.Err()) == fault.KindCanceled {
				return nil, try, &fault.Error{Op: "TX", Kind: fault.KindCanceled, Outcome: fault.OutcomeNotApplied, Err: ctx.Err()}
			}
			return nil, try, conflict(try + 1)
		}
	}
	return nil, txTries, conflict(txTries)
}

func conflict(tries int) *fault.Error {
	return &fault.Error{Op: "TX", Kind: fault.KindConflict, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("a watched key changed in each of %d tries", tries)}
}

// tryTx makes one try. again without an error is a conflict; with one it is a
// failure before anything could be applied.
func (r *Redis) tryTx(ctx context.Context, keys []string, fn func(*Tx) error, next *redirect) (msgs []Message, again bool, err error) {
	tx, e := r.begin(ctx, keys, next)
	if e != nil {
		return nil, e.Outcome == fault.OutcomeNotApplied && (e.Kind == fault.KindUnavailable && r.Available() || errors.Is(e, fault.ErrMoved) || e.Later), e
	}
	finished := false
	defer func() {
		// After a panic the watch is still on.
		tx.conn.dirty = tx.conn.dirty || !finished
		tx.conn.release()
	}()
	if err = fn(tx); err == nil && len(tx.queue) > 0 {
		msgs, again, err = tx.exec()
	} else if len(keys) > 0 && !tx.conn.dirty {
		tx.conn.do(ctx, r.builder.Unwatch().Build())
	}
	finished = true
	return msgs, again, err
}

// begin borrows a connection and watches the keys on it.
func (r *Redis) begin(ctx context.Context, keys []string, next *redirect) (*Tx, *fault.Error) {
	slot := uint16(keyless)
	if len(keys) > 0 {
		cmd := r.builder.Get().Key(keys[0]).Build()
		slot = cmd.Slot()
	} else if r.topology.clustered() {
		return nil, refused("WATCH", errTxKeys)
	}
	at := *next
	*next = redirect{}
	n, err := at.node, (*fault.Error)(nil)
	if n == nil {
		n, err = r.topology.pick(ctx, slot)
	}
	if err != nil {
		return nil, err.For("WATCH")
	}
	c, err := n.dedicated.acquire(ctx)
	if err != nil {
		return nil, err.For("WATCH")
	}
	if len(keys) > 0 {
		res := c.do(ctx, at.ask(r.builder, r.builder.Watch().Key(keys...).Build())...)
		if err := res[len(res)-1].Error(); err != nil {
			c.dirty = true
			c.release()
			if rd, moved := r.topology.follow(n, err); moved {
				*next = rd
				err = fmt.Errorf("%w: %w", fault.ErrMoved, err)
				return nil, &fault.Error{Op: "WATCH", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: err}
			}
			f := n.noteFailure(ctx, "WATCH", err, fault.ReadOnly)
			f.Later = f.Backoff
			return nil, f.Error
		}
	}
	return &Tx{r: r, n: n, conn: c, ctx: ctx, redirect: at, next: next}, nil
}

// Do sends a command at once, inside the watch: reads belong here. What it
// writes is applied whatever becomes of the transaction.
func (tx *Tx) Do(build func(Builder) Command) (Message, error) {
	cmds := []Command{build(tx.r.builder)}
	op := cmds[0].Commands()[0]
	p, e := look(cmds, tx.r.cfg.MaxValueSize, nil)
	if e != nil {
		return Message{}, publicError(e)
	}
	if tx.conn.dirty {
		return Message{}, publicError(fault.NotSent(op, fault.KindUnavailable, fault.ErrNotOpen))
	}
	res := tx.conn.do(tx.ctx, tx.redirect.ask(tx.r.builder, cmds...)...)
	msg, err := res[len(res)-1].ToMessage()
	if err == nil || err == rueidis.Nil {
		return msg, nil
	}
	return Message{}, publicError(tx.n.noteFailure(tx.ctx, op, err, p.idempotency).Error)
}

// Queue adds a command to those that EXEC applies together. build is called
// after the function has returned.
func (tx *Tx) Queue(build func(Builder) Command) { tx.queue = append(tx.queue, build) }

func (tx *Tx) exec() (msgs []Message, again bool, err error) {
	b := tx.r.builder
	cmds := make([]Command, 0, len(tx.queue)+2)
	cmds = append(cmds, b.Multi().Build())
	for _, build := range tx.queue {
		cmds = append(cmds, build(b))
	}
	queued := cmds[1:]
	if _, e := look(queued, tx.r.cfg.MaxValueSize, nil); e != nil {
		tx.conn.dirty = true
		return nil, false, e
	}
	if tx.conn.dirty {
		return nil, false, &fault.Error{Op: "EXEC", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrNotOpen}
	}
	res := tx.conn.do(tx.ctx, tx.redirect.ask(b, append(cmds, b.Exec().Build())...)...)
	res = res[len(res)-len(cmds)-1:]
	msgs, err = res[len(res)-1].ToArray()
	switch {
	case err == rueidis.Nil:
		return nil, true, nil
	case err == nil:
		return msgs, false, tx.refusedInside(msgs)
	}
	// EXECABORT only says that a command was refused; the refusal says why.
	for _, r := range res[1 : len(res)-1] {
		if reply, ok := rueidis.IsRedisErr(r.Error()); ok {
			if rd, moved := tx.r.topology.follow(tx.n, reply); moved { // its slot moved after WATCH
				*tx.next = rd
				return nil, true, nil
			}
			f := tx.n.noteFailure(tx.ctx, "QUEUE", reply, fault.NonIdempotent)
			f.Op = "EXEC"
			f.Outcome, f.Later = fault.OutcomeNotApplied, f.Backoff
			return nil, f.Retry, f.Error
		}
	}
	// Some servers queue a command of a slot that moves, and EXEC is redirected.
	if reply, ok := rueidis.IsRedisErr(err); ok {
		if rd, moved := tx.r.topology.follow(tx.n, reply); moved {
			*tx.next = rd
			return nil, true, nil
		}
	}
	f := tx.n.noteFailure(tx.ctx, "EXEC", err, fault.NonIdempotent)
	f.Later = f.Backoff
	return nil, errors.Is(err, fault.ErrNotOpen) || f.Later, f.Error
}

// refusedInside is the first error among EXEC's replies. Unless each of them is
// a refusal, the commands beside it were applied.
func (tx *Tx) refusedInside(msgs []Message) error {
	var first *fault.Error
	applied := false
	for i := range msgs {
		e := msgs[i].Error()
		if e == nil || e == rueidis.Nil {
			applied = true
			continue
		}
		f := tx.n.noteFailure(tx.ctx, "EXEC", e, fault.NonIdempotent)
		applied = applied || f.Outcome != fault.OutcomeNotApplied
		if first == nil {
			first = f.Error
		}
	}
	if first == nil {
		return nil
	}
	if applied {
		first.Outcome = fault.OutcomeUnknown
	}
	return first
}

var errTxKeys = errors.New("a transaction in a cluster needs a key to watch: it says which node")

// ask puts ASKING before commands for a slot that is being moved.
func (rd redirect) ask(b Builder, cmds ...Command) []Command {
	if !rd.asking {
		return cmds
	}
	return append([]Command{b.Asking().Build()}, cmds...)
}
