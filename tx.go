package madcrow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// txTries bounds how often a transaction is tried when others keep changing
// the watched keys.
const txTries = 32

// Tx is one try of a transaction. It is valid inside the function given to
// [Redis.Tx] only, and not for concurrent use.
type Tx struct {
	r     *Redis
	ctx   context.Context
	route *topology.Route   // of all tries
	to    topology.Redirect // where this try goes
	conn  *conn.Dedicated
	queue []Command

	// wrote says that a command of Do that is no read may have been applied.
	wrote bool
	// refusal and refused are the last failure of Do, as it came and as it was
	// returned.
	refusal error
	refused *Error
}

// Tx runs fn between WATCH and EXEC: fn reads with [Tx.Do] and queues writes
// with [Tx.Queue], which are applied together, or not at all when somebody
// changed one of keys in between. Then fn is called again, on fresh reads, up
// to 32 times; after that the error is [ErrConflict]. It returns the replies
// to the queued commands.
//
// fn must be safe to repeat, and builds its commands again each time. It is repeated also where Redis refused its first
// [Tx.Do] for the moment, or redirected it. Any other error of fn ends it:
// nothing is applied, and the error is returned as it is. All tries together end by ctx's deadline or
// Config.CommandTimeout, whichever is sooner. When EXEC was sent and no reply
// came the outcome is [OutcomeUnknown]. A transaction has a connection of its
// own and takes 2 round trips and those of fn; a script ([Redis.Eval]) takes
// one. In a cluster it needs at least one key, and all that it touches must be in
// the slot of the first.
func (r *Redis) Tx(ctx context.Context, keys []string, fn func(*Tx) error) ([]Reply, error) {
	start := clock.Now()
	bounded, cancel := context.WithTimeout(ctx, r.cfg.CommandTimeout)
	defer cancel()
	r.calls.Add(1)
	defer r.calls.Add(-1)
	msgs, tries, err := r.transact(bounded, keys, fn)
	if e, ok := err.(*fault.Error); ok { //nolint:errorlint // made here; an error of fn is returned as it is
		err = publicError(e)
	}
	if r.rec != nil {
		var kind Kind
		if e := (*Error)(nil); errors.As(err, &e) {
			kind = e.Kind
		}
		r.recordKind(ctx, "TX", len(msgs), start, tries, kind)
	}
	return repliesOf(msgs), err
}

func (r *Redis) transact(ctx context.Context, keys []string, fn func(*Tx) error) ([]Message, int, error) {
	c := topology.Route{Topology: r.topology}
	for conflicts := 0; conflicts < txTries; {
		msgs, next, err := r.tryTx(ctx, &c, keys, fn)
		switch next {
		case txDone:
			return msgs, c.Tries + conflicts, err
		case txAgain:
			continue
		}
		conflicts++
		if clock.Sleep(ctx, rand.N(time.Duration(min(conflicts, 8))*time.Millisecond)) == nil { //nolint:gosec // no secret
			continue
		}
		if fault.ContextKind(ctx.Err()) == fault.KindCanceled {
			return nil, c.Tries + conflicts, &fault.Error{Op: "TX", Kind: fault.KindCanceled, Outcome: fault.OutcomeNotApplied, Err: ctx.Err()}
		}
		return nil, c.Tries + conflicts, conflict(conflicts)
	}
	return nil, c.Tries + txTries, conflict(txTries)
}

// txNext is what follows one try of a transaction.
type txNext uint8

const (
	txDone     txNext = iota // it succeeded or failed
	txAgain                  // nothing was applied, and the route leads on
	txConflict               // a watched key changed
)

func conflict(tries int) *fault.Error {
	return &fault.Error{Op: "TX", Kind: fault.KindConflict, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("a watched key changed in each of %d tries", tries)}
}

// tryTx makes one try. The error is that of a transaction that is done.
func (r *Redis) tryTx(ctx context.Context, c *topology.Route, keys []string, fn func(*Tx) error) (msgs []Message, next txNext, err error) {
	tx, again, e := r.beginTx(ctx, c, keys)
	if again {
		return nil, txAgain, nil
	}
	if e != nil {
		return nil, txDone, e
	}
	finished := false
	defer func() {
		if tx.conn != nil { // after a panic the watch is still on
			tx.conn.Dirty = tx.conn.Dirty || !finished
			tx.conn.Release()
		}
	}()
	if err = fn(tx); err == nil && len(tx.queue) > 0 {
		msgs, next, err = tx.exec()
	} else if len(keys) > 0 && !tx.conn.Dirty {
		tx.conn.Do(ctx, c.Topology.Builder.Unwatch().Build())
	}
	finished = true
	if tx.refused != nil && !tx.wrote && errors.Is(err, tx.refused) {
		tx.conn.Release()
		tx.conn = nil
		if again, _ := c.Retry(ctx, tx.to.Node, tx.refused.Op, tx.refusal, fault.NonIdempotent); again {
			return nil, txAgain, nil
		}
	}
	return msgs, next, err
}

// beginTx acquires a connection and watches the keys on it.
func (r *Redis) beginTx(ctx context.Context, c *topology.Route, keys []string) (_ *Tx, again bool, e *fault.Error) {
	b := c.Topology.Builder
	slot := uint16(topology.Keyless)
	if len(keys) > 0 {
		cmd := b.Get().Key(keys[0]).Build()
		slot = cmd.Slot()
	} else if c.Topology.Clustered() {
		return nil, false, topology.NotAllowed("WATCH", errTxKeys)
	}
	to, e := c.Pick(ctx, slot)
	if e != nil {
		return nil, false, e.For("WATCH")
	}
	conn, e := to.Node.Dedicated.Acquire(ctx)
	if e != nil {
		again, e = c.Retry(ctx, to.Node, "WATCH", e, fault.ReadOnly)
		return nil, again, e
	}
	if len(keys) > 0 {
		res := conn.Do(ctx, to.Ask(b, b.Watch().Key(keys...).Build())...)
		if failed := res[len(res)-1].Error(); failed != nil {
			conn.Dirty = true
			conn.Release()
			again, e = c.Retry(ctx, to.Node, "WATCH", failed, fault.ReadOnly)
			return nil, again, e
		}
	}
	return &Tx{r: r, ctx: ctx, route: c, to: to, conn: conn}, false, nil
}

// B returns a builder of commands: see [Redis.B].
func (tx *Tx) B() Builder { return tx.r.builder }

// Do sends a command at once, inside the watch: reads belong here. What it
// writes is applied whatever becomes of the transaction.
func (tx *Tx) Do(cmd Command) Reply {
	if cmd.IsEmpty() {
		return Reply{err: publicError(topology.NotAllowed("DO", errEmpty))}
	}
	cmds := []Command{cmd}
	op := cmds[0].Commands()[0]
	p, e := topology.Inspect(cmds, tx.r.cfg.MaxValueSize, nil)
	if e != nil {
		return Reply{err: publicError(e)}
	}
	if tx.conn.Dirty {
		return Reply{err: publicError(fault.NotSent(op, fault.KindUnavailable, fault.ErrNotOpen))}
	}
	res := tx.conn.Do(tx.ctx, tx.to.Ask(tx.r.builder, cmds...)...)
	msg, err := res[len(res)-1].ToMessage()
	if err == nil || err == rueidis.Nil { //nolint:errorlint // the client's own value
		tx.wrote = tx.wrote || p.Idempotency != fault.ReadOnly
		return Reply{msg: msg}
	}
	f := tx.to.Node.NoteFailure(tx.ctx, op, err, p.Idempotency)
	tx.refusal, tx.refused = err, publicError(f.Error)
	tx.wrote = tx.wrote || f.Outcome != fault.OutcomeNotApplied
	return Reply{err: tx.refused}
}

// Queue adds a command to those that EXEC applies together, after the function has
// returned.
func (tx *Tx) Queue(cmd Command) { tx.queue = append(tx.queue, cmd) }

func (tx *Tx) exec() (msgs []Message, next txNext, err error) {
	b := tx.r.builder
	cmds := make([]Command, 0, len(tx.queue)+2)
	cmds = append(cmds, b.Multi().Build())
	for _, cmd := range tx.queue {
		if cmd.IsEmpty() {
			tx.conn.Dirty = true // the watch is still on
			return nil, txDone, topology.NotAllowed("QUEUE", errEmpty)
		}
		cmds = append(cmds, cmd)
	}
	queued := cmds[1:]
	if _, e := topology.Inspect(queued, tx.r.cfg.MaxValueSize, nil); e != nil {
		tx.conn.Dirty = true
		return nil, txDone, e
	}
	if tx.conn.Dirty {
		return nil, txDone, &fault.Error{Op: "EXEC", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrNotOpen}
	}
	res := tx.conn.Do(tx.ctx, tx.to.Ask(b, append(cmds, b.Exec().Build())...)...)
	res = res[len(res)-len(cmds)-1:]
	msgs, err = res[len(res)-1].ToArray()
	switch {
	case err == rueidis.Nil: //nolint:errorlint // the client's own value
		return nil, txConflict, nil
	case err == nil:
		return msgs, txDone, tx.refusedInside(msgs)
	}
	// EXECABORT only says that a command was refused; the refusal says why. Some
	// servers queue a command of a slot that moves; then EXEC is redirected.
	failed := err
	for _, r := range res[1 : len(res)-1] {
		if reply, ok := rueidis.IsRedisErr(r.Error()); ok {
			failed = reply
			break
		}
	}
	tx.conn.Release() // others need it while this call waits
	tx.conn = nil
	again, e := tx.route.Retry(tx.ctx, tx.to.Node, "EXEC", failed, fault.NonIdempotent)
	if again {
		return nil, txAgain, nil
	}
	if failed != err { //nolint:errorlint // the very same
		e.Outcome = fault.OutcomeNotApplied // EXEC was refused with it
	}
	return nil, txDone, e
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
		f := tx.to.Node.NoteFailure(tx.ctx, "EXEC", e, fault.NonIdempotent)
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
