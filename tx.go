package madcrow

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"
)

// txTries bounds how often a transaction is tried when others keep changing
// the watched keys.
const txTries = 32

// Tx is one try of a transaction. It is valid inside the function given to
// [Redis.Tx] only, and not for concurrent use.
type Tx struct {
	r       *Redis
	conn    rueidis.DedicatedClient
	release func()
	ctx     context.Context
	queue   []func(Builder) Command
	dead    bool // the connection cannot be used again
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
// one.
func (r *Redis) Tx(ctx context.Context, keys []string, fn func(*Tx) error) ([]Message, error) {
	start := mono()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CommandTimeout)
	defer cancel()
	r.calls.Add(1)
	defer r.calls.Add(-1)
	msgs, tries, err := r.transact(ctx, keys, fn)
	if r.rec != nil {
		var e *Error
		errors.As(err, &e)
		r.record("TX", len(msgs), start, tries, e)
	}
	return msgs, err
}

func (r *Redis) transact(ctx context.Context, keys []string, fn func(*Tx) error) ([]Message, int, error) {
	for try := range txTries {
		msgs, again, err := r.tryTx(ctx, keys, fn)
		if !again {
			return msgs, try, err
		}
		if err != nil && (try+1 >= maxTries || ctx.Err() != nil) {
			return nil, try, err
		}
		select {
		case <-time.After(rand.N(time.Duration(try+1) * time.Millisecond)):
		case <-ctx.Done():
			return nil, try, &Error{Op: "TX", Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: waited(ctx.Err(), &Error{Err: ErrConflict})}
		}
	}
	return nil, txTries, &Error{Op: "TX", Kind: KindConflict, Outcome: OutcomeNotApplied, Err: errors.New("a watched key changed in each of 32 tries")}
}

// tryTx makes one try. again without an error is a conflict; with one it is a
// failure before anything could be applied.
func (r *Redis) tryTx(ctx context.Context, keys []string, fn func(*Tx) error) (msgs []Message, again bool, err error) {
	tx, watchErr := r.begin(ctx, keys)
	if watchErr != nil {
		return nil, watchErr.Outcome == OutcomeNotApplied && watchErr.Kind == KindUnavailable && r.Available(), watchErr
	}
	returned := false
	defer func() {
		tx.dead = tx.dead || !returned // fn panicked: the watch is still on
		tx.end()
	}()
	watched := len(keys) > 0
	err = fn(tx)
	returned = true
	if err != nil {
		tx.unwatch(watched)
		return nil, false, err
	}
	if len(tx.queue) == 0 {
		tx.unwatch(watched)
		return nil, false, nil
	}
	return tx.exec()
}

// begin borrows a connection and watches the keys on it.
func (r *Redis) begin(ctx context.Context, keys []string) (*Tx, *Error) {
	p := r.node.pool
	if err := p.take(ctx); err != nil {
		named := *err
		named.Op = "WATCH"
		return nil, &named
	}
	type opened struct {
		conn    rueidis.DedicatedClient
		release func()
		err     error
	}
	done := make(chan opened)
	go func() {
		conn, release := p.client.Dedicate()
		var err error
		if len(keys) > 0 && ctx.Err() == nil {
			err = conn.Do(ctx, conn.B().Watch().Key(keys...).Build()).Error()
		}
		select {
		case done <- opened{conn, release, err}:
		case <-ctx.Done(): // the caller has left
			conn.Close()
			p.give()
		}
	}()
	select {
	case o := <-done:
		tx := &Tx{r: r, conn: o.conn, release: o.release, ctx: ctx}
		if o.err != nil {
			tx.dead = true
			tx.end()
			return nil, r.node.failed(ctx, "WATCH", o.err, true).Error
		}
		return tx, nil
	case <-ctx.Done():
		return nil, &Error{Op: "WATCH", Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: ctx.Err()}
	}
}

// Do sends a command at once, inside the watch: reads belong here. What it
// writes is applied whatever becomes of the transaction.
func (tx *Tx) Do(build func(Builder) Command) (Message, error) {
	cmd := build(tx.conn.B())
	op, repeatable := cmd.Commands()[0], cmd.IsReadOnly()
	res, err := tx.send(cmd)
	if err == nil {
		var msg Message
		if msg, err = res[0].ToMessage(); err == nil || err == rueidis.Nil {
			return msg, nil
		}
	}
	return Message{}, tx.r.node.failed(tx.ctx, op, err, repeatable).Error
}

// Queue adds a command to those that EXEC applies together. build is called
// after the function has returned.
func (tx *Tx) Queue(build func(Builder) Command) { tx.queue = append(tx.queue, build) }

// send runs commands in a goroutine that the caller can leave behind, because
// a borrowed connection hears deadlines but no cancellation.
func (tx *Tx) send(cmds ...Command) ([]rueidis.RedisResult, error) {
	if tx.dead {
		return nil, errRefused
	}
	if err := tx.ctx.Err(); err != nil {
		return nil, &Error{Kind: contextKind(err), Outcome: OutcomeNotApplied, Err: err}
	}
	done := make(chan []rueidis.RedisResult, 1)
	go func() { done <- tx.conn.DoMulti(tx.ctx, cmds...) }()
	select {
	case res := <-done:
		tx.dead = broken(res)
		return res, nil
	case <-tx.ctx.Done():
		tx.dead = true
		return nil, tx.ctx.Err()
	}
}

func (tx *Tx) exec() (msgs []Message, again bool, err error) {
	b := tx.conn.B()
	cmds := make([]Command, 0, len(tx.queue)+2)
	cmds = append(cmds, b.Multi().Build())
	for _, build := range tx.queue {
		cmds = append(cmds, build(b))
	}
	cmds = append(cmds, b.Exec().Build())
	if p := look(cmds); p.size > tx.r.cfg.MaxValueSize {
		tx.dead = true
		return nil, false, tooLarge("TX", p.size, tx.r.cfg.MaxValueSize)
	}
	res, err := tx.send(cmds...)
	if err != nil {
		return nil, false, tx.r.node.failed(tx.ctx, "EXEC", err, false).Error
	}
	exec := res[len(res)-1]
	msgs, err = exec.ToArray()
	switch {
	case err == rueidis.Nil:
		return nil, true, nil
	case err == nil:
		for i := range msgs {
			if e := msgs[i].Error(); e != nil && e != rueidis.Nil {
				f := tx.r.node.failed(tx.ctx, "EXEC", e, false)
				f.Outcome = OutcomeUnknown // the commands beside it were applied
				return msgs, false, f.Error
			}
		}
		return msgs, false, nil
	}
	// EXECABORT only says that a command was refused; the refusal says why.
	for _, r := range res[1 : len(res)-1] {
		if reply, ok := rueidis.IsRedisErr(r.Error()); ok {
			f := tx.r.node.failed(tx.ctx, "EXEC", reply, false)
			f.Outcome = OutcomeNotApplied
			return nil, false, f.Error
		}
	}
	return nil, false, tx.r.node.failed(tx.ctx, "EXEC", err, false).Error
}

func (tx *Tx) unwatch(watched bool) {
	if watched && !tx.dead {
		_, _ = tx.send(tx.conn.B().Unwatch().Build())
	}
}

// end gives the connection back, or ends it when it is in an unknown state.
// Neither may hold up the caller.
func (tx *Tx) end() {
	give := tx.r.node.pool.give
	if !tx.dead {
		tx.release()
		give()
		return
	}
	go func() {
		tx.conn.Close()
		give()
	}()
}
