package pubsub

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/pending"
)

// outbox holds messages while Redis is away, and sends them in order when it is
// back. While it holds any, every message goes behind them.
type outbox struct {
	b     *Bus
	queue *pending.Queue[outgoing]
	lost  logonce.Reasons // why messages may be lost; of the queue's goroutine
}

// maxBatch is how many messages are sent in one round trip.
const maxBatch = 256

func newOutbox(b *Bus, maxMessages, maxBytes int) *outbox {
	o := &outbox{b: b}
	o.queue = pending.NewQueue(b.r, pending.QueueOptions[outgoing]{
		RunnerOptions: pending.RunnerOptions{Backoff: clock.Backoff{First: 10 * time.Millisecond, Most: maxRetry}},
		MaxItems:      maxMessages, MaxSize: maxBytes, Size: outgoing.size,
		// No large pipeline, nor one that is refused. 0 would be no bound.
		MaxBatch: maxBatch, MaxBatchSize: max(1, min(b.bulkThreshold/2, b.maxMessage)),
		Send: o.send,
	})
	return o
}

func (o *outbox) holds() bool { return o.queue.Len() > 0 }

// add queues a message. It always returns an error: [ErrQueued] or the reason why
// it is not queued. cause is the error of the try to send it, or ErrQueued.
func (o *outbox) add(m outgoing, cause error) error {
	result := ErrQueued
	switch err := o.queue.Add(m); {
	case errors.Is(err, pending.ErrFull):
		result = ErrOutboxFull
	case err != nil:
		return ErrClosed
	default:
		o.b.event(context.Background(), madcrow.EventPubSubQueued, o.b.topicName(m.channel), 1)
	}
	if errors.Is(cause, ErrQueued) {
		return result
	}
	return errors.Join(result, cause)
}

// send sends a batch and returns the messages that were not sent. Those that may
// have been sent, or never can be, are dropped: sending one again could deliver it
// again.
func (o *outbox) send(ctx context.Context, batch []outgoing) (unsent []outgoing) {
	errs := o.b.sendAll(ctx, batch)
	if ctx.Err() != nil {
		return batch
	}
	lost := false
	for i, err := range errs {
		switch {
		case err == nil:
		case operr.Retryable(err):
			unsent = append(unsent, batch[i])
		default:
			if lost = true; o.lost.First(err) {
				o.b.log.Warn("messages of the outbox may be lost", "channel", batch[i].channel, "reason", err)
			}
			o.b.events.Send(ctx, madcrow.Event{Type: madcrow.EventPubSubOutboxLost, Name: o.b.topicName(batch[i].channel), Err: err})
		}
	}
	if !lost && len(unsent) == 0 && o.lost.Clear() {
		o.b.log.Info("messages of the outbox are sent again")
	}
	return unsent
}

// drain waits until everything is sent, or ctx ends, and returns how many messages
// are left.
func (o *outbox) drain(ctx context.Context) int { return o.queue.Drain(ctx) }
