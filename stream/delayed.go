package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Delayed messages wait in a sorted set beside the stream, by the time at which they
// are due. While a process works on the stream, its mover appends those that are
// due, in a script: several movers append each message once, and one that dies loses
// none.

const (
	// lookEvery is how often a mover looks at least: so late may a message be that
	// was delayed by another process for less than that.
	lookEvery = time.Second
	// lookPause is the least time between two looks.
	lookPause = 10 * time.Millisecond
	// lookRefused is the pause after a refusal that waiting does not mend.
	lookRefused = 30 * time.Second
	// maxDue and maxDueBytes bound what one script appends: other calls wait for it.
	maxDue      = 100
	maxDueBytes = 1 << 20
)

// maxDelay is the latest time of a message, the end of the year 9999.
var maxDelay = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// PublishIn is [Stream.PublishAt] of a time that is d from now by the clock of
// Redis. A d of less than a millisecond is due at once.
func (s *Stream[T]) PublishIn(ctx context.Context, d time.Duration, v T) (id string, err error) {
	ms := max(d.Milliseconds(), 0)
	if d > time.Duration(ms)*time.Millisecond {
		ms++
	}
	return s.delay(ctx, "publish_in", "in", ms, time.Now().Add(d), v)
}

// PublishAt publishes a message at a time, by the clock of Redis: until then it
// waits beside the stream, as durable as the stream itself, and [Stream.Cancel] can
// remove it by the id that this returns. It is another one than the message gets in
// the stream.
//
// A message is appended by a process in which a [Stream.Work] runs, of any group:
// never early, and late by a second at most, by milliseconds where it was delayed for
// longer than that; each once, however many processes there are. While no one works
// on the stream, or Redis is away, it waits. Those that are due at the same
// millisecond are appended in the order in which they came, others in that of their
// times. A group begins with what the stream has then: a time that is past is due at
// once.
//
// No more than [Options].MaxDelayed wait: one more is [ErrTooManyDelayed], and none
// is dropped. When the error leaves the outcome unknown, the message may wait.
// Options.Outbox does not hold it.
func (s *Stream[T]) PublishAt(ctx context.Context, t time.Time, v T) (id string, err error) {
	if t.IsZero() || t.After(maxDelay) {
		return "", fail.Argument("publish_at", s.name, "t", "must be a time before the year 10000")
	}
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return s.delay(ctx, "publish_at", "at", max(ms, 0), t, v)
}

func (s *Stream[T]) delay(ctx context.Context, op, how string, ms int64, due time.Time, v T) (string, error) {
	payload, err := codec.Encode(s.opt.Codec, v)
	if err != nil {
		return "", fail.Argument(op, s.name, "message", fmt.Sprintf("cannot be encoded: %T", v))
	}
	if err := s.checkServer(ctx); err != nil {
		return "", s.failed(op, err)
	}
	m, err := s.r.Eval(ctx, scriptDelay, []string{s.delayedKey()},
		[]string{how, strconv.FormatInt(ms, 10), strconv.Itoa(s.opt.MaxDelayed), rand.Text()[:12], payload}).Message()
	if err != nil {
		return "", s.failed(op, err)
	}
	if m.IsNil() {
		return "", s.failed(op, ErrTooManyDelayed)
	}
	s.event(ctx, madcrow.EventStreamDelayed, 1)
	s.mover.expect(due)
	id, err := m.ToString()
	return id, fail.WrapAs(op, s.name, madcrow.OutcomeUnknown, err)
}

// Cancel removes a delayed message by the id that [Stream.PublishAt] returned, and
// says whether it still waited. After that it is never appended.
func (s *Stream[T]) Cancel(ctx context.Context, id string) (bool, error) {
	due, rest, _ := strings.Cut(id, "-")
	seq, nonce, _ := strings.Cut(rest, "-")
	_, err1 := strconv.ParseUint(due, 10, 63)
	_, err2 := strconv.ParseUint(seq, 10, 63)
	if err1 != nil || err2 != nil || len(seq) != 8 || len(nonce) != 12 {
		return false, fail.Argument("cancel", s.name, "id", "must be that of a delayed message")
	}
	m, err := s.r.Eval(ctx, scriptUndelay, []string{s.delayedKey()}, []string{due, seq, nonce}).Message()
	if err != nil {
		return false, s.failed("cancel", err)
	}
	n, err := m.AsInt64()
	return n == 1, fail.WrapAs("cancel", s.name, madcrow.OutcomeUnknown, err)
}

// mover appends what is due while a process works on the stream.
type mover struct {
	mu     sync.Mutex
	works  int // calls of Work that run
	cancel context.CancelFunc
	ended  chan struct{}

	wake   chan struct{}
	nextAt atomic.Int64 // when it looks next, in Unix nanoseconds; 0: it does not run
}

// expect has the mover look at a time, if it would look later.
func (m *mover) expect(due time.Time) {
	if at := m.nextAt.Load(); at == 0 || !due.Before(time.Unix(0, at)) {
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// join runs the mover as long as someone has joined, and returns what leaves it.
func (s *Stream[T]) joinMover() (leave func()) {
	m := &s.mover
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.works++; m.works == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		m.cancel, m.ended = cancel, ended
		go func() {
			defer close(ended)
			s.moveDue(ctx)
		}()
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.works--; m.works == 0 {
			m.cancel()
			<-m.ended
		}
	}
}

func (s *Stream[T]) moveDue(ctx context.Context) {
	var said logonce.Reasons
	defer s.mover.nextAt.Store(0)
	for failures := 0; ctx.Err() == nil; {
		n, wait, err := s.appendDue(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			if n > 0 {
				s.event(ctx, madcrow.EventStreamDue, n)
			}
			if said.Clear() {
				s.log.Info("delayed messages are appended to the stream again", "stream", s.name)
			}
		default:
			if wait = retry.Delay(failures); operr.Permanent(err) {
				wait = lookRefused
			}
			failures++
			// That Redis is away is in the log already.
			if !errors.Is(err, madcrow.ErrUnavailable) && !errors.Is(err, madcrow.ErrSlotMoving) && said.First(err) {
				s.log.Warn("delayed messages cannot be appended to the stream, and wait; give the user the commands EVALSHA, ZRANGE, ZREM and XADD, or Redis memory", "stream", s.name, "reason", err)
			}
		}
		s.mover.nextAt.Store(time.Now().Add(wait).UnixNano())
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.mover.wake:
			timer.Stop()
			_ = clock.Sleep(ctx, lookPause)
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// appendDue appends messages that are due, and returns how many, and when to look
// again.
func (s *Stream[T]) appendDue(ctx context.Context) (n int, wait time.Duration, err error) {
	m, err := s.evalTogether(ctx, scriptDue, []string{s.delayedKey(), s.logKey()},
		[]string{strconv.Itoa(maxDue), strconv.Itoa(s.opt.MaxLen), strconv.Itoa(maxDueBytes)})
	if err != nil {
		return 0, 0, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 2 {
		return 0, 0, errors.Join(errReply, err)
	}
	moved, err1 := list[0].AsInt64()
	ms, err2 := list[1].AsInt64()
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, errors.Join(errReply, err)
	}
	wait = lookEvery
	if ms >= 0 {
		wait = min(wait, time.Duration(ms)*time.Millisecond)
	}
	if moved < maxDue {
		wait = max(wait, lookPause)
	}
	return int(moved), wait, nil
}
