package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/stream"
)

// Numbered messages go through every level while faults happen, and afterwards
// every one that was acknowledged is accounted for.

// levels is one subscriber of each level, in one process, and its publishers, in
// another one.
type levels struct {
	t     *testing.T
	topic *pubsub.Topic[note] // of the publishers
	// flush are messages beyond the numbered ones.

	tally struct {
		sync.Mutex
		received, missed, dropped, gaps int
		last                            bool // a message that was sent after all others came
	}

	history  *pubsub.Recoverable[note]
	listener *pubsub.Recoverable[note]
	heard    struct {
		sync.Mutex
		messages []note
		places   []pubsub.Position
		lost     int
		wrong    string
	}

	jobs   *stream.Stream[note]
	worked struct {
		sync.Mutex
		times map[int]int
		tries map[int]int
	}
}

const (
	lastNote   = 1 << 30
	poisonEach = 997 // one in so many jobs can never be done
)

// startLevels begins to listen with everything, and returns when all of it is
// subscribed.
func startLevels(t *testing.T, near, far *madcrow.Redis, sharded bool) *levels {
	needStreams(t)
	l := &levels{t: t}
	l.worked.times, l.worked.tries = map[int]int{}, map[int]int{}
	nb, fb := newBus(t, near, pubsub.Options{}), newBus(t, far, pubsub.Options{})
	l.topic = topicOf(t, fb, "t", pubsub.TopicOptions[note]{Sharded: sharded})
	l.history, _ = pubsub.NewRecoverable(fb, "t", pubsub.RecoverableOptions[note]{History: 200_000})
	l.listener, _ = pubsub.NewRecoverable(nb, "t", pubsub.RecoverableOptions[note]{History: 200_000})
	l.jobs, _ = stream.New(far, "t", stream.Options[note]{})
	ready := make(chan struct{}, 2)
	run := func(what string, do func(ctx context.Context) error) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := do(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
		})
	}
	run("topic", func(ctx context.Context) error {
		return topicOf(t, nb, "t", pubsub.TopicOptions[note]{Sharded: sharded}).Handle(ctx, func(_ context.Context, e pubsub.Event[note]) {
			l.noteTopic(e, ready)
		}, pubsub.WithQueue(1_000_000))
	})
	run("history", func(ctx context.Context) error {
		for e, err := range l.listener.Subscribe(ctx, pubsub.Position{}, pubsub.WithQueue(50)) {
			if err != nil {
				return err
			}
			l.noteHistory(e, ready)
		}
		return nil
	})
	worker, _ := stream.New(near, "t", stream.Options[note]{})
	for range 2 {
		run("work", func(ctx context.Context) error {
			return worker.Work(ctx, "g", l.work, stream.WorkOptions{
				ClaimAfter: 2 * time.Second, RetryDelay: 50 * time.Millisecond, MaxDeliveries: 4, Workers: 64,
			})
		})
	}
	<-ready
	<-ready
	return l
}

func (l *levels) noteTopic(e pubsub.Event[note], ready chan<- struct{}) {
	l.tally.Lock()
	defer l.tally.Unlock()
	switch e.Kind {
	case pubsub.EventSubscribed:
		ready <- struct{}{}
	case pubsub.EventMessage:
		l.tally.received++
		l.tally.last = l.tally.last || e.Message.N == lastNote
	case pubsub.EventMissed:
		l.tally.missed += e.N
	case pubsub.EventDropped:
		l.tally.dropped += e.N
	case pubsub.EventGap:
		l.tally.gaps++
	}
}

func (l *levels) noteHistory(e pubsub.Event[note], ready chan<- struct{}) {
	l.heard.Lock()
	defer l.heard.Unlock()
	h := &l.heard
	switch e.Kind {
	case pubsub.EventSubscribed:
		select {
		case ready <- struct{}{}:
		default:
		}
	case pubsub.EventMessage:
		if len(h.places) > 0 {
			last := h.places[len(h.places)-1]
			if last != (pubsub.Position{}) && (e.Position.Epoch != last.Epoch || e.Position.Offset != last.Offset+1) {
				h.wrong = fmt.Sprintf("%+v after %+v", e.Position, last)
			}
		}
		h.messages = append(h.messages, e.Message)
		h.places = append(h.places, e.Position)
	case pubsub.EventHistoryLost:
		h.lost++
		h.places = append(h.places, pubsub.Position{})
	}
}

func (l *levels) work(_ context.Context, d stream.Delivery[note]) error {
	l.worked.Lock()
	defer l.worked.Unlock()
	l.worked.tries[d.Message.N]++
	if d.Message.N%poisonEach == poisonEach-1 {
		return errors.New("poison")
	}
	l.worked.times[d.Message.N]++
	return nil
}

// publish sends numbered messages through all levels at once.
func (l *levels) publish(total int, over time.Duration) (topic, history, jobs *ledger) {
	var wg sync.WaitGroup
	wg.Go(func() {
		topic = pump(l.t, total, over, func(ctx context.Context, n int) error {
			_, err := l.topic.Publish(ctx, note{n})
			return err
		})
	})
	wg.Go(func() {
		history = pump(l.t, total, over, func(ctx context.Context, n int) error {
			_, err := l.history.Publish(ctx, note{n})
			return err
		})
	})
	wg.Go(func() {
		jobs = pump(l.t, total, over, func(ctx context.Context, n int) error {
			_, err := l.jobs.Publish(ctx, note{n})
			return err
		})
	})
	wg.Wait()
	return topic, history, jobs
}

// checkTopic: received, missed and dropped are what was acknowledged and what
// was perhaps published, exactly.
func (l *levels) checkTopic(led *ledger) {
	l.t.Helper()
	want := len(led.acked) + len(led.unknown)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		l.tally.Lock()
		got, over := l.tally.received+l.tally.missed+l.tally.dropped, l.tally.last
		l.tally.Unlock()
		if over && got == want {
			break
		}
		if time.Now().After(end) {
			l.t.Errorf("topic: %d accounted for, of %d", got, want)
			break
		}
		if over {
			continue
		}
		switch _, err := l.topic.Publish(l.t.Context(), note{lastNote}); { // so that all before it is known
		case err == nil, !errors.Is(err, madcrow.ErrUnavailable):
			want++
		}
	}
	l.tally.Lock()
	defer l.tally.Unlock()
	l.t.Logf("topic: %v; %d received, %d missed, %d dropped, in %d gaps", led, l.tally.received, l.tally.missed, l.tally.dropped, l.tally.gaps)
}

// checkHistory: the subscriber got all that the history holds, in its order and
// once, unless it was notified of a loss. It returns how many acknowledged messages
// Redis has lost.
func (l *levels) checkHistory(led *ledger) (gone int) {
	l.t.Helper()
	var all []note
	var end pubsub.Position
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	for e, err := range l.history.Subscribe(ctx, pubsub.Beginning) {
		if err != nil || e.Kind == pubsub.EventHistoryLost {
			l.t.Fatalf("%+v %v", e, err)
		}
		if e.Kind == pubsub.EventSubscribed {
			end = e.Position
			break
		}
		if e.Kind == pubsub.EventMessage {
			all = append(all, e.Message)
		}
	}
	testkit.Eventually(l.t, "the subscriber is up to date", func() bool {
		l.heard.Lock()
		defer l.heard.Unlock()
		return len(l.heard.places) > 0 && l.heard.places[len(l.heard.places)-1] == end || l.heard.lost > 0
	})
	l.heard.Lock()
	defer l.heard.Unlock()
	got := map[int]int{}
	for _, m := range l.heard.messages {
		got[m.N]++
	}
	missing, twice := 0, 0
	for _, n := range got {
		if n > 1 {
			twice++
		}
	}
	kept, forgotten := map[int]bool{}, 0
	for _, m := range all {
		kept[m.N] = true
		if got[m.N] == 0 {
			missing++
		}
	}
	for n := range led.acked {
		if !kept[n] {
			forgotten++
			if got[n] == 0 {
				gone++
			}
		}
	}
	if l.heard.lost == 0 && (missing > 0 || l.heard.wrong != "" || !endsWith(l.heard.messages, all)) || twice > 0 {
		l.t.Errorf("history: %d missing, %d twice, %s", missing, twice, l.heard.wrong)
	}
	l.t.Logf("history: %v; %d kept, %d heard, %d times notified that some is lost, %d missing, %d acknowledged ones lost by Redis and %d of them never heard", led, len(all), len(l.heard.messages), l.heard.lost, missing, forgotten, gone)
	return gone
}

// endsWith says that both are the same, but for what a failover took out of the
// one that came later.
func endsWith(heard, all []note) bool {
	kept := map[note]bool{}
	for _, m := range all {
		kept[m] = true
	}
	return slices.Equal(slices.DeleteFunc(slices.Clone(heard), func(m note) bool { return !kept[m] }), all)
}

// checkStream: every message was done at least once, poison is among the dead
// letters, each once, and nothing else is. It returns how many acknowledged
// messages Redis has lost.
func (l *levels) checkStream(led *ledger, mayLose bool) (gone int) {
	l.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		lag, err := l.jobs.Lag(l.t.Context(), "g")
		if err == nil && lag.Pending == 0 && lag.Waiting == 0 {
			break
		}
		if time.Now().After(end) {
			l.t.Errorf("stream: not all work is done: %+v %v", lag, err)
			break
		}
	}
	dead, err := l.jobs.Dead(l.t.Context(), "g", "", 10_000)
	if err != nil {
		l.t.Fatal(err)
	}
	letters := map[int]int{}
	for _, d := range dead {
		if letters[d.Message.N]++; letters[d.Message.N] > 1 {
			l.t.Errorf("stream: %d is dead twice", d.Message.N)
		}
		if d.Message.N%poisonEach != poisonEach-1 {
			l.t.Errorf("stream: %d was put aside: %s, after %d", d.Message.N, d.Reason, d.Deliveries)
		}
	}
	l.worked.Lock()
	defer l.worked.Unlock()
	again, tries := 0, 0
	for n := range led.acked {
		switch {
		case n%poisonEach == poisonEach-1 && letters[n] == 0, n%poisonEach != poisonEach-1 && l.worked.times[n] == 0:
			gone++
			if !mayLose {
				l.t.Errorf("stream: %d was never done, after %d tries", n, l.worked.tries[n])
			}
		}
		again += max(0, l.worked.times[n]-1)
		tries += l.worked.tries[n]
	}
	l.t.Logf("stream: %v; %d tries, %d done again, %d dead letters, %d lost by Redis", led, tries, again, len(dead), gone)
	return gone
}

// named opens a Redis whose connections the tests can distinguish from others.
func named(t *testing.T, cfg madcrow.Config) *madcrow.Redis {
	cfg.ClientName = "levels"
	return openConfig(t, cfg)
}

// kill ends the connections of named.
func kill(t *testing.T, srv *madcrowtest.Server) {
	list, _ := srv.Do(t, "CLIENT", "LIST").(string)
	for line := range strings.Lines(list) {
		if id, rest, ok := strings.Cut(strings.TrimPrefix(line, "id="), " "); ok && strings.Contains(rest, " name=levels ") {
			srv.Do(t, "CLIENT", "KILL", "ID", id)
		}
	}
}

// killing kills connections ten times a second, until it is stopped.
func killing(t *testing.T, srv func() *madcrowtest.Server) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				kill(t, srv())
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

func TestFault_KilledConnectionsLoseNothingUnaccounted(t *testing.T) {
	t.Parallel()
	srv := madcrowtest.StartRedis(t)
	l := startLevels(t, named(t, srv.Config()), named(t, srv.Config()), false)
	stop := killing(t, func() *madcrowtest.Server { return srv })
	topic, history, jobs := l.publish(long(10_000, 100_000), long(3*time.Second, 60*time.Second))
	stop()
	l.checkTopic(topic)
	if gone := l.checkHistory(history); gone > 0 || l.heard.lost > 0 {
		t.Errorf("history: %d lost, notified %d times", gone, l.heard.lost)
	}
	l.checkStream(jobs, false)
}

func TestFault_SentinelFailoverLosesNothingUnaccounted(t *testing.T) {
	t.Parallel()
	set := madcrowtest.StartSentinel(t)
	l := startLevels(t, named(t, set.Config()), named(t, set.Config()), false)
	var topic, history, jobs *ledger
	done := make(chan struct{})
	go func() {
		defer close(done)
		topic, history, jobs = l.publish(long(10_000, 100_000), long(4*time.Second, 60*time.Second))
	}()
	time.Sleep(500 * time.Millisecond)
	for range long(1, 3) {
		stop := killing(t, set.Master)
		time.Sleep(500 * time.Millisecond)
		set.Failover(t)
		time.Sleep(500 * time.Millisecond)
		stop()
		if soaking {
			set.WaitReady(t)
		}
	}
	<-done
	l.checkTopic(topic)
	lost := l.checkHistory(history)
	gone := l.checkStream(jobs, true)
	t.Logf("the failover itself lost %d of %d in the history, %d of %d in the stream", lost, len(history.acked), gone, len(jobs.acked))
}

func TestFault_MovedSlotLosesNothingUnaccounted(t *testing.T) {
	t.Parallel()
	c := madcrowtest.StartCluster(t)
	l := startLevels(t, named(t, c.Config()), named(t, c.Config()), true)
	stop := killing(t, func() *madcrowtest.Server { return c.MasterOf(t, "t") })
	var topic, history, jobs *ledger
	done := make(chan struct{})
	go func() {
		defer close(done)
		topic, history, jobs = l.publish(long(10_000, 100_000), long(3*time.Second, 60*time.Second))
	}()
	time.Sleep(500 * time.Millisecond)
	for range long(1, 20) { // the topic's slot and those of the others: all are named t
		from := c.MasterOf(t, "t")
		for _, to := range c.Nodes() {
			if to != from && to == c.MasterOf(t, to.Addr()) {
				c.MoveSlot(t, c.Slot("t"), to)
				break
			}
		}
		time.Sleep(time.Second)
	}
	<-done
	stop()
	l.checkTopic(topic)
	if gone := l.checkHistory(history); gone > 0 {
		t.Errorf("history: %d lost", gone)
	}
	l.checkStream(jobs, false)
}
