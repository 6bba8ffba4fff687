package pubsub_test

import (
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// A publish appends to the history and names its end, in two keys of one slot.
func TestRecoverable_PublishWhileItsSlotMovesWaitsOrIsNotMade(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("topics with a history need sharded channels in a cluster")
	}
	c := madcrowtest.StartCluster(t)
	r := named(t, c.Config())
	bus := newBus(t, r, pubsub.Options{})
	topic := testkit.Must[*pubsub.Recoverable[string]](t)(pubsub.NewRecoverable(bus, "moving", pubsub.RecoverableOptions[string]{}))
	meta, history := "m1:topic:{moving}:meta", "m1:topic:{moving}:history"
	slot, to := c.Slot(meta), c.Nodes()[0]
	if to == c.MasterOf(t, meta) {
		to = c.Nodes()[1]
	}

	c.BeginMove(t, slot, to)
	began := time.Now()
	_, err := topic.Publish(t.Context(), "to a new topic")
	var e *madcrow.Error
	if !errors.Is(err, madcrow.ErrSlotMoving) || !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied {
		t.Errorf("to a new topic: %v", err)
	}
	if took, most := time.Since(began), r.Config().CommandTimeout+testkit.Slack(100*time.Millisecond); took > most {
		t.Errorf("refused after %v of %v", took, most)
	}
	// A subscriber of a new topic begins without a history after one round trip.
	began = time.Now()
	for event, err := range topic.Subscribe(t.Context(), pubsub.Position{}) {
		if took := time.Since(began); err != nil || event.Kind != pubsub.EventSubscribed || took > testkit.Slack(250*time.Millisecond) {
			t.Errorf("%v, %v after %v", event.Kind, err, took)
		}
		break
	}
	c.FinishMove(t, slot, to)

	before, err := topic.Publish(t.Context(), "before")
	if err != nil {
		t.Fatal(err)
	}
	from := c.Nodes()[1]
	if from == to {
		from = c.Nodes()[0]
	}
	c.BeginMove(t, slot, from)
	c.MoveKeys(t, from, meta)
	time.AfterFunc(50*time.Millisecond, func() { c.MoveKeys(t, from, history) })
	after, err := topic.Publish(t.Context(), "between the moves of its keys")
	if err != nil || after.Epoch != before.Epoch || after.Offset != before.Offset+1 {
		t.Errorf("%v after %v, %v", after, before, err)
	}
	c.FinishMove(t, slot, from)
}
