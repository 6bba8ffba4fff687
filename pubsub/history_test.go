package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// diary is a recoverable topic on a server of its own, and its keys.
type diary struct {
	*pubsub.Recoverable[int]
	srv           *madcrowtest.Server
	r             *madcrow.Redis
	meta, history string
}

func keepDiary(t testing.TB, opt pubsub.RecoverableOptions[int], change func(*madcrow.Config)) *diary {
	t.Helper()
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	if change != nil {
		change(&cfg)
	}
	r := openConfig(t, cfg)
	topic, err := pubsub.NewRecoverable(newBus(t, r, pubsub.Options{}), "d", opt)
	if err != nil {
		t.Fatal(err)
	}
	return &diary{topic, srv, r, "m1:topic:{d}:meta", "m1:topic:{d}:history"}
}

func (d *diary) write(t testing.TB, from, to int) (last pubsub.Position) {
	t.Helper()
	for n := from; n <= to; n++ {
		var err error
		if last, err = d.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

func (d *diary) follow(t testing.TB, after pubsub.Position, opts ...pubsub.SubscribeOption) *ear[pubsub.Event[int]] {
	return hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[int], error] {
		return d.Subscribe(ctx, after, opts...)
	})
}

// expectEvents expects events of a subscriber: numbers, "subscribed", "lost",
// "interrupted".
func expectEvents(t testing.TB, l *ear[pubsub.Event[int]], want string) (last pubsub.Position) {
	t.Helper()
	for i, w := range strings.Fields(want) {
		e := l.next(t, w, func(pubsub.Event[int]) bool { return true })
		got := map[pubsub.EventKind]string{
			pubsub.EventMessage: fmt.Sprint(e.Message), pubsub.EventSubscribed: "subscribed",
			pubsub.EventInterrupted: "interrupted", pubsub.EventHistoryLost: "lost",
		}[e.Kind]
		if got != w || (e.Kind == pubsub.EventHistoryLost) != errors.Is(e.Err, pubsub.ErrHistoryLost) {
			t.Fatalf("notified %q as number %d of %q: %+v", got, i, want, e)
		}
		last = e.Position
	}
	return last
}

func numbersFrom(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		fmt.Fprint(&b, n, " ")
	}
	return b.String()
}

// From every place, also from before the first message, and through the text of
// the position, as another process would.
func TestRecoverable_ResumesFromEveryPlace(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	before := d.follow(t, pubsub.Position{})
	empty := expectEvents(t, before, "subscribed")
	fromBeginning := d.follow(t, pubsub.Beginning)
	emptyToo := expectEvents(t, fromBeginning, "subscribed")
	places := []pubsub.Position{empty}
	for n := range 20 {
		at := d.write(t, n, n)
		if e := expectEvents(t, before, fmt.Sprint(n)); e != at {
			t.Errorf("%d is at %v and heard at %v", n, at, e)
		}
		places = append(places, at)
	}
	expectEvents(t, fromBeginning, numbersFrom(0, 19))
	resume := func(at pubsub.Position, from int) {
		t.Helper()
		again, err := pubsub.ParsePosition(at.String())
		if err != nil || again != at || at.String() == "" {
			t.Fatalf("%v became %v, %v", at, again, err)
		}
		expectEvents(t, d.follow(t, again), numbersFrom(from, 19)+" subscribed")
	}
	for from, at := range places {
		resume(at, from)
	}
	resume(emptyToo, 0)
	resume(pubsub.Beginning, 0)
	now := d.follow(t, pubsub.Position{})
	expectEvents(t, now, "subscribed")
	d.write(t, 20, 20)
	expectEvents(t, now, "20")
	for _, s := range []string{"x", "1-2", "a-b-c", "-1-x", "a-99999999999999999999-x", strings.Repeat("a", 200) + "-1-x"} {
		var e *madcrow.ArgumentError
		if _, err := pubsub.ParsePosition(s); !errors.As(err, &e) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Several subscribers, one of them too slow for its queue: each gets everything
// in order, the slow one from the history.
func TestRecoverable_OverflowIsRefilledFromTheHistory(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	slowly, goOn := make(chan struct{}), make(chan struct{})
	got := make(chan int, 2000)
	go func() {
		for e, err := range d.Subscribe(t.Context(), pubsub.Position{}, pubsub.WithQueue(5)) {
			switch {
			case err != nil || e.Kind == pubsub.EventHistoryLost:
				t.Errorf("%+v %v", e, err)
			case e.Kind == pubsub.EventSubscribed:
				close(slowly)
			case e.Kind == pubsub.EventMessage:
				if e.Message == 1 {
					<-goOn
				}
				got <- e.Message
			}
		}
	}()
	<-slowly
	others := []*ear[pubsub.Event[int]]{d.follow(t, pubsub.Position{}), d.follow(t, pubsub.Position{})}
	for _, o := range others {
		expectEvents(t, o, "subscribed")
	}
	d.write(t, 1, 900)
	for _, o := range others {
		expectEvents(t, o, numbersFrom(1, 900))
	}
	close(goOn)
	for n := 1; n <= 900; n++ {
		if m := <-got; m != n {
			t.Fatalf("got %d, want %d", m, n)
		}
	}
}

// What was trimmed while somebody was away is reported, and the next messages come.
func TestRecoverable_TrimmedHistoryIsHistoryLost(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{History: 10}, nil)
	old := d.write(t, 1, 1)
	last := d.write(t, 2, 2000)
	if n, _ := d.srv.Do(t, "XLEN", d.history).(int64); n < 10 || n > 300 {
		t.Errorf("%d are kept, of at least 10", n)
	}
	l := d.follow(t, old)
	if at := expectEvents(t, l, "lost subscribed"); at != last {
		t.Errorf("goes on from %v, want %v", at, last)
	}
	d.write(t, 2001, 2001)
	expectEvents(t, l, "2001")
	oldest := d.follow(t, pubsub.Beginning) // the oldest that is kept is no loss
	first := oldest.next(t, "the oldest", func(pubsub.Event[int]) bool { return true })
	if first.Kind != pubsub.EventMessage || first.Message < 1700 {
		t.Errorf("%+v", first)
	}
	expectEvents(t, oldest, numbersFrom(first.Message+1, 2001)+" subscribed")
}

// A failover may give an offset again. Who heard the message that is gone is not
// given another one for it, nor made to believe that nothing happened.
func TestRecoverable_ReusedOffsetIsHistoryLost(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	d.write(t, 1, 5)
	l := d.follow(t, pubsub.Beginning)
	expectEvents(t, l, numbersFrom(1, 5)+" subscribed")
	saved := []any{d.srv.Do(t, "DUMP", d.meta), d.srv.Do(t, "DUMP", d.history)}
	at := d.write(t, 6, 7)
	expectEvents(t, l, "6 7")
	for again := range 2 {
		// The replica that takes over has not heard of 6 and 7.
		d.srv.Do(t, "RESTORE", d.meta, "0", saved[0].(string), "REPLACE")
		d.srv.Do(t, "RESTORE", d.history, "0", saved[1].(string), "REPLACE")
		last := d.write(t, 60, 61+again) // 7 again, and then beyond it
		d.srv.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
		if got := expectEvents(t, l, "interrupted lost subscribed"); got != last || got.Epoch != at.Epoch {
			t.Errorf("goes on from %v, want %v", got, last)
		}
		expectEvents(t, d.follow(t, at), "lost subscribed")
		d.write(t, 70, 70)
		expectEvents(t, l, "70")
	}
	// It also is when the connection did not break.
	d.srv.Do(t, "RESTORE", d.meta, "0", saved[0].(string), "REPLACE")
	d.srv.Do(t, "RESTORE", d.history, "0", saved[1].(string), "REPLACE")
	d.write(t, 80, 89)
	expectEvents(t, l, "lost")
}

// A topic that was silent for longer than its history lives has lost nothing,
// neither for those who listen nor for those who come back.
func TestRecoverable_SilenceLosesNothing(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{HistoryTTL: time.Second}, nil)
	at := d.write(t, 1, 3)
	l := d.follow(t, at)
	expectEvents(t, l, "subscribed")
	testkit.Eventually(t, "the end of the history", func() bool { return d.srv.Do(t, "EXISTS", d.history) == int64(0) })
	if ttl, _ := d.srv.Do(t, "PTTL", d.meta).(int64); ttl < 23*3600*1000 {
		t.Errorf("where it ends is kept for %d ms", ttl)
	}
	expectEvents(t, d.follow(t, at), "subscribed")
	expectEvents(t, d.follow(t, pubsub.Beginning), "subscribed")
	d.write(t, 4, 4)
	expectEvents(t, l, "4")
	expectEvents(t, d.follow(t, at), "4 subscribed")
}

// Whoever listens loses nothing when all data goes, or when Redis evicts one of
// the two keys; who was away is notified of what is not certain any more.
func TestRecoverable_LostKeys(t *testing.T) {
	for name, lose := range map[string][]string{
		"all": {"FLUSHALL"}, "where it ends": {"DEL", "m1:topic:{d}:meta"}, "the messages": {"DEL", "m1:topic:{d}:history"},
	} {
		t.Run(name, func(t *testing.T) {
			d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
			d.write(t, 1, 3)
			l := d.follow(t, pubsub.Beginning)
			at := expectEvents(t, l, "1 2 3 subscribed")
			old := pubsub.Position{Epoch: at.Epoch, Offset: 1, Nonce: "x"}
			d.srv.Do(t, lose...)
			d.write(t, 4, 6)
			expectEvents(t, l, "4 5 6")
			if name == "the messages" { // the end is known, and it had all of it
				expectEvents(t, d.follow(t, at), "4 5 6 subscribed")
			} else {
				expectEvents(t, d.follow(t, at), "lost subscribed")
			}
			expectEvents(t, d.follow(t, old), "lost subscribed")
			expectEvents(t, d.follow(t, pubsub.Beginning), "4 5 6 subscribed")
			if name == "all" {
				d.srv.Do(t, "FLUSHALL")
				again := d.follow(t, at)
				if p := expectEvents(t, again, "lost subscribed"); p.String() == "" {
					t.Error("lost, and no place to go on from")
				}
				d.write(t, 7, 7)
				expectEvents(t, again, "7")
				expectEvents(t, l, "7")
			}
		})
	}
}

// A subscription before the first message had no history: when the history that
// began then was lost and another one began, no loss was reported. So it creates
// one; a user without permission to write creates none, and listens.
func TestRecoverable_PositionBeforeTheFirstMessageBelongsToItsHistory(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	l := d.follow(t, pubsub.Position{})
	at := expectEvents(t, l, "subscribed")
	if ttl, _ := d.srv.Do(t, "PTTL", d.meta).(int64); ttl < 24*3600*1000 {
		t.Errorf("it is kept for %d ms", ttl)
	}
	if same := expectEvents(t, d.follow(t, pubsub.Beginning), "subscribed"); same != at {
		t.Errorf("%v and %v", at, same)
	}
	d.write(t, 1, 3)
	expectEvents(t, l, "1 2 3")
	expectEvents(t, d.follow(t, at), "1 2 3 subscribed")
	d.srv.Do(t, "DEL", d.meta, d.history)
	d.write(t, 4, 4)
	expectEvents(t, l, "4")
	expectEvents(t, d.follow(t, at), "lost subscribed")
	d.srv.Do(t, "FLUSHALL")
	at = expectEvents(t, d.follow(t, at), "lost subscribed")
	d.write(t, 5, 5)
	expectEvents(t, l, "5")
	expectEvents(t, d.follow(t, at), "5 subscribed")
	d.srv.Do(t, "FLUSHALL")
	d.write(t, 6, 6)
	expectEvents(t, d.follow(t, at), "lost subscribed")
	d.srv.Do(t, "ACL", "SETUSER", "default", "-evalsha", "-eval") // first: the others that listen may begin one
	d.srv.Do(t, "FLUSHALL")
	d.srv.Do(t, "ACL", "SETUSER", "default", "-@write")
	defer d.srv.Do(t, "ACL", "SETUSER", "default", "+@all")
	reader := d.follow(t, pubsub.Position{})
	none := expectEvents(t, reader, "subscribed")
	if none.String() != "*-0-0" {
		t.Errorf("begun without the right to: %v", none)
	}
	d.srv.Do(t, "ACL", "SETUSER", "default", "+@all")
	d.write(t, 7, 7)
	expectEvents(t, reader, "7")
	expectEvents(t, d.follow(t, none), "7 subscribed")
}

// While Redis is away the interruption is reported, and when it is back everything
// that was published meanwhile comes.
func TestRecoverable_CatchesUpWhenRedisIsBack(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	near, _ := pubsub.NewRecoverable(newBus(t, openConfig(t, cfg), pubsub.Options{}), "d", pubsub.RecoverableOptions[int]{})
	far, _ := pubsub.NewRecoverable(newBus(t, openConfig(t, srv.Config()), pubsub.Options{}), "d", pubsub.RecoverableOptions[int]{})
	l := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[int], error] {
		return near.Subscribe(ctx, pubsub.Position{})
	})
	expectEvents(t, l, "subscribed")
	proxy.Refuse(true)
	proxy.ResetAll()
	expectEvents(t, l, "interrupted")
	for n := range 1000 {
		if _, err := far.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	proxy.Refuse(false)
	expectEvents(t, l, numbersFrom(0, 999)+" subscribed")
}

// Large messages over a slow wire: pages get smaller until they come in time.
func TestRecoverable_LargeMessagesAreReadInPagesThatFit(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	cfg.CommandTimeout = 250 * time.Millisecond
	near, _ := pubsub.NewRecoverable(newBus(t, openConfig(t, cfg), pubsub.Options{}), "d", pubsub.RecoverableOptions[string]{})
	far, _ := pubsub.NewRecoverable(newBus(t, openConfig(t, srv.Config()), pubsub.Options{}), "d", pubsub.RecoverableOptions[string]{})
	const total, size = 8, 256 << 10
	for n := range total {
		if _, err := far.Publish(t.Context(), strings.Repeat(string(rune('a'+n)), size)); err != nil {
			t.Fatal(err)
		}
	}
	proxy.SetBandwidth(4 << 20) // a page of four does not come in time
	start := time.Now()
	l := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[string], error] {
		return near.Subscribe(ctx, pubsub.Beginning)
	})
	for n := range total {
		e := l.next(t, "a message", func(e pubsub.Event[string]) bool {
			return e.Kind != pubsub.EventInterrupted && e.Kind != pubsub.EventSubscribed
		})
		if e.Kind != pubsub.EventMessage || len(e.Message) != size || e.Message[0] != byte('a'+n) {
			t.Fatalf("number %d: %v, %d bytes", n, e.Kind, len(e.Message))
		}
	}
	t.Logf("%d messages of %d KiB after %v", total, size>>10, time.Since(start))
}

// Published is both or neither: with no right to the channel, and with memory
// full, the history is as it was.
func TestRecoverable_PublishIsBothOrNeither(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("users have rules for channels from Redis 6.2 on")
	}
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	at := d.write(t, 1, 2)
	l := d.follow(t, at)
	expectEvents(t, l, "subscribed")
	d.srv.Do(t, "ACL", "SETUSER", "default", "resetchannels")
	if _, err := d.Publish(t.Context(), 3); err == nil {
		t.Error("published without the right to")
	}
	d.srv.Do(t, "ACL", "SETUSER", "default", "allchannels")
	d.srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	if _, err := d.Publish(t.Context(), 4); !errors.Is(err, madcrow.ErrOutOfMemory) {
		t.Errorf("with memory full: %v", err)
	}
	d.srv.Do(t, "CONFIG", "SET", "maxmemory", "0")
	if n := d.srv.Do(t, "XLEN", d.history); n != int64(2) {
		t.Errorf("%v are kept", n)
	}
	if next := d.write(t, 5, 5); next.Offset != at.Offset+1 {
		t.Errorf("%v after %v", next, at)
	}
	e := l.next(t, "5", func(e pubsub.Event[int]) bool {
		return e.Kind == pubsub.EventMessage || e.Kind == pubsub.EventHistoryLost
	})
	if e.Kind != pubsub.EventMessage || e.Message != 5 {
		t.Errorf("%+v", e)
	}
}

func TestRecoverable_PublishReturnsThePosition(t *testing.T) {
	d := keepDiary(t, pubsub.RecoverableOptions[int]{}, nil)
	var before pubsub.Position
	for n := range 3 {
		at, err := d.Publish(t.Context(), n)
		if err != nil || at.Offset != uint64(n)+1 || at.Epoch == "" || at.Nonce == "" || n > 0 && at.Epoch != before.Epoch {
			t.Errorf("%v after %v, %v", at, before, err)
		}
		before = at
	}
}

func TestEventKind_HasAName(t *testing.T) {
	for kind, want := range map[pubsub.EventKind]string{
		pubsub.EventMessage: "message", pubsub.EventSubscribed: "subscribed", pubsub.EventInterrupted: "interrupted", pubsub.EventGap: "gap",
		pubsub.EventMissed: "missed", pubsub.EventDropped: "dropped", pubsub.EventHistoryLost: "history-lost", 77: "unknown",
	} {
		if got := kind.String(); got != want {
			t.Errorf("%d is called %q, want %q", kind, got, want)
		}
	}
}
