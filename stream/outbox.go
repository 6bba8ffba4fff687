package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/pending"
)

// maxBatch is how many messages of the outbox are sent in one round trip.
const maxBatch = 256

// outbox holds messages while Redis is away, and appends them in order when it is
// back. While it holds any, every message goes behind them.
type outbox[T any] struct {
	s     *Stream[T]
	queue *pending.Queue[string]
	lost  logonce.Reasons // why messages are lost, or wait for memory; of the queue's goroutine
}

func newOutbox[T any](s *Stream[T], maxMessages, maxBytes int) *outbox[T] {
	o := &outbox[T]{s: s}
	o.queue = pending.NewQueue(s.r, pending.QueueOptions[string]{
		RunnerOptions: pending.RunnerOptions{Backoff: clock.Backoff{First: 10 * time.Millisecond, Most: 500 * time.Millisecond}, Writable: true},
		MaxItems:      maxMessages, MaxSize: maxBytes, Size: s.size,
		MaxBatch: maxBatch, MaxBatchSize: max(1, min(s.bulkThreshold/2, s.maxMessage)),
		Send: o.send,
	})
	return o
}

// size is more bytes than the command of a message has.
func (s *Stream[T]) size(payload string) int { return len(payload) + len(s.prefix) + 64 }

// add queues a message. It always returns an error: [ErrQueued] or the reason why
// it is not queued. cause is the error of the try to publish it, or nil.
func (o *outbox[T]) add(ctx context.Context, payload string, cause error) error {
	result := ErrQueued
	switch err := o.queue.Add(payload); {
	case errors.Is(err, pending.ErrFull):
		result = ErrOutboxFull
	case err != nil:
		return ErrClosed
	default:
		o.s.event(ctx, madcrow.EventStreamQueued, 1)
	}
	return errors.Join(result, cause)
}

// send appends a batch and returns the messages that are tried again: those that
// were not appended, and those that may have been. A message may come twice, and is
// not lost. Those that never can be appended are dropped.
func (o *outbox[T]) send(ctx context.Context, batch []string) (unsent []string) {
	cmds := make([]madcrow.Command, len(batch))
	for i, payload := range batch {
		cmds[i] = o.s.add(o.s.r.B(), payload)
	}
	res, err := o.s.r.DoMulti(ctx, cmds...)
	if ctx.Err() != nil {
		return batch
	}
	lost, sent := 0, 0
	for i, payload := range batch {
		failure := err
		if len(res) == len(batch) {
			failure = res[i].Err()
		}
		switch {
		case failure == nil:
			sent++
		case passing(failure):
			unsent = append(unsent, payload)
			if errors.Is(failure, madcrow.ErrOutOfMemory) && o.lost.First(failure) {
				o.s.log.Warn("messages of the outbox wait: Redis has no memory for them", "stream", o.s.name, "reason", failure)
			}
		default:
			lost++
			if o.lost.First(failure) {
				o.s.log.Error("messages of the outbox are lost: Redis refuses them", "stream", o.s.name, "reason", failure)
			}
			o.s.events.Send(ctx, madcrow.Event{Type: madcrow.EventStreamOutboxLost, Err: failure})
		}
	}
	if sent > 0 {
		o.s.event(ctx, madcrow.EventStreamPublished, sent)
	}
	if lost == 0 && len(unsent) == 0 && o.lost.Clear() {
		o.s.log.Info("messages of the outbox are appended again", "stream", o.s.name)
	}
	return unsent
}

// passing says that a message may be appended later.
func passing(err error) bool {
	var e *madcrow.Error
	return operr.Retryable(err) || errors.Is(err, madcrow.ErrOutOfMemory) || errors.As(err, &e) && e.Outcome == madcrow.OutcomeUnknown && !operr.Permanent(err)
}

// drain waits until everything is sent, or ctx ends, and says what is left.
func (o *outbox[T]) drain(ctx context.Context) error {
	n := o.queue.Drain(ctx)
	o.queue.Close()
	if n > 0 {
		return fmt.Errorf("stream: %d messages were not sent: %w", n, ErrClosed)
	}
	return nil
}
