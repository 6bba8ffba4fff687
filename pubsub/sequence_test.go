package pubsub

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

// plainCount is the model: every number by itself.
type plainCount struct {
	next    uint64
	waiting map[uint64]time.Time // may still come
	gone    map[uint64]bool      // is not expected any more
}

func (m *plainCount) take(n uint64, skipped []span, now time.Time) (missing int, fresh bool) {
	if m.next == 0 {
		m.next, m.waiting, m.gone = n, map[uint64]time.Time{}, map[uint64]bool{}
		for k := uint64(1); k < n; k++ {
			m.gone[k] = true
		}
	}
	for ; m.next < n; m.next++ {
		m.waiting[m.next] = now.Add(reorderWithin)
	}
	_, waited := m.waiting[n]
	fresh = n == m.next || waited || m.gone[n]
	m.next = max(m.next, n+1)
	delete(m.waiting, n)
	delete(m.gone, n)
	for _, v := range skipped {
		for k := v.from; k <= v.to; k++ {
			delete(m.waiting, k)
			delete(m.gone, k)
		}
	}
	return m.expire(now), fresh
}

func (m *plainCount) expire(now time.Time) (missing int) {
	for k, until := range m.waiting {
		if !now.Before(until) {
			delete(m.waiting, k)
			m.gone[k] = true
			missing++
		}
	}
	return missing
}

func soak(usual, soak int) int {
	if testkit.Soak {
		return soak
	}
	return usual
}

// Random schedules of losses, delays, duplicates and skipped, of several
// publishers at once, against the model.
func TestSequences_CountLikeAPlainModel(t *testing.T) {
	for seed := range soak(300, 30_000) {
		rnd := rand.New(rand.NewPCG(uint64(seed), 7))
		var s sequences
		models := map[string]*plainCount{}
		now := time.Now()
		var sent [3]numbers
		var late []envelope
		for step := range 300 {
			now = now.Add(time.Duration(rnd.IntN(60)) * time.Millisecond)
			p := rnd.IntN(3)
			n := &sent[p]
			n.publisher = fmt.Sprint("p", p)
			number, skipped := n.next(now)
			e := envelope{publisher: n.publisher, number: number, skipped: skipped}
			var now2 []envelope
			switch rnd.IntN(8) {
			case 0: // lost
			case 1:
				n.skip(number, now)
			case 2:
				late = append(late, e)
			case 3:
				now2 = []envelope{e, e}
			case 4:
				now2 = []envelope{e}
				if len(late) > 0 {
					i := rnd.IntN(len(late))
					now2 = append(now2, late[i])
					late = append(late[:i], late[i+1:]...)
				}
			default:
				now2 = []envelope{e}
			}
			if len(now2) > 0 && rnd.IntN(3) > 0 {
				n.markAnnounced(skipped)
			}
			for _, e := range now2 {
				m := models[e.publisher]
				if m == nil {
					m = &plainCount{}
					models[e.publisher] = m
				}
				name, missing, fresh := s.record("c", e, now)
				wantMissing, wantFresh := m.take(e.number, e.skipped, now)
				if name != e.publisher || missing != wantMissing || fresh != wantFresh {
					t.Fatalf("seed %d, step %d, %+v: missing %d, fresh %v; want %d, %v", seed, step, e, missing, fresh, wantMissing, wantFresh)
				}
			}
			if rnd.IntN(10) == 0 {
				want := 0
				for _, m := range models {
					want += m.expire(now)
				}
				if got := s.expire(now); got != want {
					t.Fatalf("seed %d, step %d: %d expired, want %d", seed, step, got, want)
				}
			}
			waiting := 0
			for el := s.order.Front(); el != nil; el = el.Next() {
				waiting += len(el.Value.(*sequence).holes)
			}
			if waiting != s.openHoles {
				t.Fatalf("seed %d, step %d: %d holes are counted, %d there", seed, step, s.openHoles, waiting)
			}
		}
	}
}

// What the subscriber is promised: received and missed together are what was
// published, whatever the order, as long as nothing is later than the window.
func TestSequences_ReceivedAndMissedAreWhatWasPublished(t *testing.T) {
	for seed := range soak(200, 5_000) {
		rnd := rand.New(rand.NewPCG(uint64(seed), 8))
		var s sequences
		n := numbers{publisher: "p"}
		now := time.Now()
		published, received, missed := 0, 0, 0
		took := func(e envelope) {
			_, missing, fresh := s.record("c", e, now)
			missed += missing
			if fresh {
				received++
			}
		}
		var late []envelope
		away := 0
		for range 2000 {
			now = now.Add(time.Millisecond)
			number, skipped := n.next(now)
			e := envelope{publisher: "p", number: number, sent: now, skipped: skipped}
			if away--; away < -50 && rnd.IntN(100) == 0 {
				away = rnd.IntN(300) // Redis is away
			}
			switch {
			case away > 0:
				n.skip(number, now)
				continue
			case received > 0 && rnd.IntN(20) == 0: // acknowledged, and the subscriber was not there
				n.markAnnounced(skipped)
			case rnd.IntN(4) == 0:
				late = append(late, e)
			default:
				took(e)
				n.markAnnounced(skipped)
			}
			published++
			if len(late) > rnd.IntN(64) {
				i := rnd.IntN(len(late))
				if now.Sub(late[0].sent) > reorderWithin/2 {
					i = 0
				}
				took(late[i])
				late = append(late[:i], late[i+1:]...)
			}
		}
		for _, e := range late {
			took(e)
		}
		number, skipped := n.next(now)
		took(envelope{publisher: "p", number: number, skipped: skipped})
		now = now.Add(reorderWithin)
		missed += s.expire(now)
		if published+1 != received+missed {
			t.Fatalf("seed %d: %d published, %d received, %d missed", seed, published+1, received, missed)
		}
	}
}

// The first message that arrives need not be the first that was sent. Earlier ones
// that came after it were dropped as duplicates.
func TestSequences_FirstMessagesOutOfOrderAreNotDropped(t *testing.T) {
	var s sequences
	for _, n := range []uint64{3, 1, 2, 4} {
		if _, missing, fresh := s.record("c", envelope{publisher: "p", number: n}, time.Now()); !fresh || missing != 0 {
			t.Errorf("%d: fresh %v, %d missing", n, fresh, missing)
		}
	}
	if _, _, fresh := s.record("c", envelope{publisher: "p", number: 2}, time.Now()); fresh {
		t.Error("2 came twice")
	}
}

// A message that came after it was given up was dropped as a duplicate.
func TestSequences_LateMessageIsDelivered(t *testing.T) {
	var s sequences
	now := time.Now()
	s.record("c", envelope{publisher: "p", number: 1}, now)
	s.record("c", envelope{publisher: "p", number: 3}, now)
	if n := s.expire(now.Add(reorderWithin)); n != 1 {
		t.Errorf("%d missing, want 1", n)
	}
	if _, _, fresh := s.record("c", envelope{publisher: "p", number: 2}, now.Add(2*reorderWithin)); !fresh {
		t.Error("2 was taken for a duplicate")
	}
}

// Messages that could not be sent in an outage counted as missed at subscribers.
// They must not, also when the first message that announces the skipped numbers is
// lost.
func TestSequences_UnsentMessagesDoNotCountAsMissed(t *testing.T) {
	var s sequences
	n := numbers{publisher: "p"}
	now := time.Now()
	take := func() (missing int) {
		number, skipped := n.next(now)
		_, missing, _ = s.record("c", envelope{publisher: "p", number: number, skipped: skipped}, now)
		n.markAnnounced(skipped)
		return missing
	}
	take()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				number, _ := n.next(now)
				n.skip(number, now)
			}
		})
	}
	wg.Wait()
	if len(n.skipped) != 1 {
		t.Errorf("%d spans for one outage", len(n.skipped))
	}
	number, skipped := n.next(now) // is lost
	n.markAnnounced(skipped)
	missing := take()
	now = now.Add(reorderWithin)
	if missing += s.expire(now); missing != 1 {
		t.Errorf("%d missed, want the one message %d", missing, number)
	}
	now = now.Add(2 * repeatSkipped)
	if _, skipped := n.next(now); skipped != nil {
		t.Errorf("still announces %v", skipped)
	}
}

func TestSequences_AreBounded(t *testing.T) {
	var s sequences
	now := time.Now()
	missed := 0
	for i := range 2 * maxPublishers {
		p := fmt.Sprint("p", i)
		_, m1, _ := s.record("c", envelope{publisher: p, number: 1}, now)
		_, m2, _ := s.record("c", envelope{publisher: p, number: 3}, now)
		missed += m1 + m2
	}
	if len(s.bySource) != maxPublishers || s.order.Len() != maxPublishers || missed != maxPublishers || s.openHoles != maxPublishers {
		t.Errorf("%d publishers, %d missed, %d waiting", len(s.bySource), missed, s.openHoles)
	}
	if _, _, fresh := s.record("c", envelope{publisher: fmt.Sprint("p", maxPublishers), number: 2}, now); !fresh {
		t.Error("one that was heard lately was forgotten")
	}
	for i := range uint64(10 * maxSpans) { // every other one is lost
		_, m, _ := s.record("c", envelope{publisher: "q", number: 2*i + 1}, now)
		missed += m
	}
	q := s.bySource[source{"c", "q"}].Value.(*sequence)
	if len(q.holes) > maxSpans || len(q.givenUp) > maxSpans {
		t.Errorf("%d and %d spans", len(q.holes), len(q.givenUp))
	}
	// A jump costs nothing, and what comes after it is not lost.
	_, _, fresh := s.record("c", envelope{publisher: "q", number: 1 << 62}, now)
	if m := s.expire(now.Add(reorderWithin)); !fresh || m <= 0 {
		t.Errorf("after a jump: fresh %v, %d missed", fresh, m)
	}
	if _, _, fresh := s.record("c", envelope{publisher: "q", number: 10 * maxSpans * 2}, now); !fresh {
		t.Error("after a jump, one from before it is dropped")
	}
}

// The publisher's name was a part of the message, so that each name kept a whole
// message in memory.
func TestSequences_KeepNoMessageForItsPublishersName(t *testing.T) {
	var s sequences
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 400 {
		text := envelope{publisher: fmt.Sprint("p", i), number: 1, payload: strings.Repeat("x", 256<<10)}.text()
		e, ok := parseEnvelope(text)
		if !ok {
			t.Fatal("no envelope")
		}
		s.record("c", e, time.Now())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 20<<20 {
		t.Errorf("%d MiB are kept for 400 names", kept>>20)
	}
	runtime.KeepAlive(&s)
}

// Where too many channels were published to, numbers begin again under another
// name: no subscriber takes the new ones for old.
func TestNumbers_AreBounded(t *testing.T) {
	b := &Bus{processID: "n", numbers: map[string]*numbers{}}
	first := b.numbersOf("c")
	for i := range maxNumbered {
		b.numbersOf(fmt.Sprint("other", i))
	}
	again := b.numbersOf("c")
	if len(b.numbers) > maxNumbered || again == first || again.publisher == first.publisher {
		t.Errorf("%d, %q after %q", len(b.numbers), again.publisher, first.publisher)
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add("m1 p 1 1700000000000\npayload")
	f.Add("m1 p 9 0 7,3-5\n")
	f.Add("m1 p 9223372036854775807 -1 1-9223372036854775806\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		e, ok := parseEnvelope(text)
		if !ok {
			return
		}
		again, ok := parseEnvelope(e.text())
		if !ok || again.publisher != e.publisher || again.number != e.number || !again.sent.Equal(e.sent) || again.payload != e.payload || fmt.Sprint(again.skipped) != fmt.Sprint(e.skipped) {
			t.Fatalf("%q: %+v, then %+v", text, e, again)
		}
		var s sequences
		s.record("c", envelope{publisher: e.publisher, number: 2}, time.Now())
		_, missing, _ := s.record("c", e, time.Now())
		if missing += s.expire(time.Now().Add(reorderWithin)); missing < 0 {
			t.Fatalf("%q: %d missing", text, missing)
		}
	})
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", "*-0-", "*-0-0", "EPOCH-12-NONCE", "a--b", "-1-", "e-18446744073709551615-n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(s)
		if err != nil {
			if p != (Position{}) {
				t.Fatalf("%q: %+v with %v", s, p, err)
			}
			return
		}
		if again, err := ParsePosition(p.String()); err != nil || again != p {
			t.Fatalf("%q: %+v, then %+v, %v", s, p, again, err)
		}
	})
}

func FuzzParseLive(f *testing.F) {
	f.Add("r1 EPOCH 1 NONCE  SEAL\npayload")
	f.Add("r1 EPOCH 2 NONCE BEFORE SEAL\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, ok := parseLive(text)
		if !ok {
			return
		}
		if want := fmt.Sprintf("r1 %s %d %s %s %s\n%s", m.at.Epoch, m.at.Offset, m.at.Nonce, m.previous, m.seal, m.payload); m.at.Offset == 0 ||
			want != text && !strings.Contains(text, " 0") && !strings.Contains(text, " +") {
			t.Fatalf("%q: %+v", text, m)
		}
		if !strings.HasPrefix(text, m.head+" "+m.seal+"\n") {
			t.Fatalf("%q: the seal is of %q", text, m.head)
		}
	})
}
