package pubsub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// numbered is a message that carries its number, from 1.
func numberedItem(n int) item {
	return item{kind: EventMessage, message: &message{env: envelope{number: uint64(n)}}}
}

// reader takes the items of a subscriber and checks that everything is at its
// place: messages in order, each loss where it happened and with its number,
// and what events are between the messages where it was.
type reader struct {
	t        *testing.T
	received int
	dropped  int
	controls int // what else
}

func (r *reader) take(s *subscriber) bool {
	r.t.Helper()
	it, ok, _ := s.next()
	if !ok {
		return false
	}
	at := r.received + r.dropped
	switch it.kind {
	case EventMessage:
		if got := int(it.message.env.number); got != at+1 {
			r.t.Fatalf("message %d after %d", got, at)
		}
		r.received++
	case EventDropped:
		r.dropped += it.n
	default: // since is the number of messages before it
		if want := int(it.since.Unix()); want != at {
			r.t.Fatalf("%v after %d messages, want after %d", it.kind, at, want)
		}
		r.controls++
	}
	return true
}

// Whatever the rule: what is received and what is dropped is what came, in
// order and at its place, and what is no message is never dropped.
func TestSubscriber_EventsKeepTheirPlaceBetweenMessages(t *testing.T) {
	rules := map[string]Overflow{"newest": DropNewest, "oldest": DropOldest, "block": Block(20 * time.Millisecond)}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for seed := range soak(300, 20_000) {
				synctest.Test(t, func(t *testing.T) {
					rnd := rand.New(rand.NewPCG(uint64(seed), 9))
					bound := 1 + rnd.IntN(20)
					s := newSubscriber(bound, rule)
					lost := 0
					s.dropped = func(n int) { lost += n }
					r := &reader{t: t}
					pushed, controls := 0, 0
					bias := 2 + rnd.IntN(8) // how fast the reader is
					for range 400 {
						time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
						switch n := rnd.IntN(10); {
						case n < bias:
							r.take(s)
						case n == 9 && rnd.IntN(2) == 0:
							kind := []EventKind{EventInterrupted, EventGap}[controls%2]
							s.push(item{kind: kind, since: time.Unix(int64(pushed), 0)})
							controls++
						default:
							pushed++
							s.push(numberedItem(pushed))
						}
						if s.messages > bound || len(s.arrived) > bound {
							t.Fatalf("%d in the queue, %d waiting, of %d", s.messages, len(s.arrived), bound)
						}
					}
					for r.take(s) {
					}
					if r.received+r.dropped != pushed || r.controls != controls || lost != r.dropped {
						t.Fatalf("%d received, %d dropped (%d counted) of %d; %d notified of %d", r.received, r.dropped, lost, pushed, r.controls, controls)
					}
				})
			}
		})
	}
}

func TestOverflow_EachRuleDropsWhatItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fill := func(rule Overflow) *subscriber {
			s := newSubscriber(3, rule)
			for i := range 10 {
				s.push(numberedItem(i + 1))
			}
			return s
		}
		list := func(s *subscriber) (out string) {
			for {
				it, ok, err := s.next()
				switch {
				case errors.Is(err, ErrSlow):
					return out + "slow"
				case !ok:
					return out
				case it.kind == EventDropped:
					out += fmt.Sprint("-", it.n, " ")
				default:
					out += fmt.Sprint(it.message.env.number, " ")
				}
			}
		}
		for _, c := range []struct{ got, want string }{
			{list(fill(DropNewest)), "1 2 3 -7 "},
			{list(fill(DropOldest)), "-7 8 9 10 "},
			{list(fill(Disconnect)), "1 2 3 slow"},
			{list(fill(Block(time.Second))), "1 2 3 4 5 6 -4 "},
			{list(fill(Block(0))), "1 2 3 4 5 6 -4 "},
		} {
			if c.got != c.want {
				t.Errorf("%q, want %q", c.got, c.want)
			}
		}
		s := fill(Block(time.Second))
		time.Sleep(time.Second + 1) // none that waited gets a place
		if got := list(s); got != "1 2 3 -7 " {
			t.Errorf("too late: %q", got)
		}
	})
}

// An event before them kept messages that waited for a place from expiring: they
// waited for longer than Block allows.
func TestOverflow_BlockedMessagesExpireBehindAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSubscriber(1, Block(time.Second))
		s.push(numberedItem(1))
		s.push(numberedItem(2))
		s.push(item{kind: EventInterrupted, since: time.Unix(2, 0)})
		s.push(numberedItem(3))
		time.Sleep(2 * time.Hour)
		r := &reader{t: t}
		for r.take(s) {
		}
		if r.received != 1 || r.dropped != 2 || r.controls != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// A subscriber that was stuck while the connection broke again and again collected
// an event for each change. It holds no more than its queue, and gets the outcome.
func TestOverflow_EventsOfAStuckSubscriberAreBounded(t *testing.T) {
	for name, rule := range map[string]Overflow{"newest": DropNewest, "oldest": DropOldest, "block": Block(time.Hour), "disconnect": Disconnect} {
		s := newSubscriber(4, rule)
		start := time.Now()
		s.push(item{kind: EventSubscribed})
		for i := range 10_000 {
			for range 3 {
				s.push(numberedItem(1))
			}
			s.push(item{kind: EventMissed, n: 2})
			s.push(item{kind: EventInterrupted})
			s.push(item{kind: EventGap, since: start.Add(time.Duration(i) * time.Second), until: start.Add(time.Duration(i+1) * time.Second)})
		}
		s.push(item{kind: EventInterrupted})
		if n := s.beforeQueue.n + s.queue.n + s.waiting.n; n > 400 {
			t.Errorf("%s: %d items wait", name, n)
		}
		var missed, messages, dropped, level, subscribed int
		var covered time.Duration
		for {
			it, ok, _ := s.next()
			if !ok {
				break
			}
			switch it.kind {
			case EventMessage:
				messages++
			case EventMissed:
				missed += it.n
			case EventDropped:
				dropped += it.n
			case EventSubscribed:
				subscribed++
			case EventInterrupted:
				level--
			case EventGap:
				level++
				covered += it.until.Sub(it.since)
			}
			if level < -1 || level > 0 {
				t.Fatalf("%s: %v", name, it.kind)
			}
		}
		if rule == Disconnect {
			continue
		}
		if missed != 20_000 || messages+dropped != 30_000 || level != -1 || subscribed != 1 || covered != 10_000*time.Second {
			t.Errorf("%s: %d missed, %d messages, %d dropped, level %d, %d subscribed, %v covered", name, missed, messages, dropped, level, subscribed, covered)
		}
	}
}

// Dropping costs about the same however long the queue is and whatever is in it: a
// queue of 65,536 takes no more than 20 times as long as one of 16, whose ratio is
// 4,096.
func TestOverflow_DroppingCostsTheSameInALongQueue(t *testing.T) {
	for _, rule := range []Overflow{DropNewest, DropOldest, Block(time.Hour)} {
		var cost [2]time.Duration
		for i, bound := range []int{16, 65_536} {
			s := newSubscriber(bound, rule)
			it := numberedItem(1)
			push := func(n int) time.Duration {
				start := time.Now()
				for i := range n {
					s.push(it)
					if i%100 == 0 {
						s.push(item{kind: EventMissed, n: 1})
					}
				}
				return time.Since(start)
			}
			push(2 * bound)
			cost[i] = min(push(50_000), push(50_000), push(50_000)) // without the pauses of others
		}
		if cost[1] > 20*cost[0] {
			t.Errorf("rule %d: %v in a short queue, %v in a long one", rule.rule, cost[0], cost[1])
		}
	}
}

// A queue is bounded in bytes too, whatever the rule, and what that drops is notified
// like all that is dropped; but one message may always wait. 200 messages of 10 MB
// were 2 GB.
func TestOverflow_QueueIsBoundedInBytes(t *testing.T) {
	sized := func(n, size int) item {
		it := numberedItem(n)
		it.message.raw = string(make([]byte, size))
		return it
	}
	for name, rule := range map[string]Overflow{"newest": DropNewest, "oldest": DropOldest, "block": Block(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			s, r := newSubscriber(1024, rule), &reader{t: t}
			s.maxBytes = 1000
			const total = 2000
			for n := 1; n <= total; n++ {
				s.push(sized(n, rnd.IntN(400)))
				if s.bytes > s.maxBytes || s.waitingBytes > s.maxBytes {
					t.Fatalf("%d and %d bytes", s.bytes, s.waitingBytes)
				}
				if rnd.IntN(4) == 0 {
					r.take(s)
				}
			}
			for r.take(s) {
			}
			if r.received+r.dropped != total || r.received < 20 || s.bytes != 0 || s.waitingBytes != 0 {
				t.Errorf("%d received and %d dropped of %d; %d and %d bytes left", r.received, r.dropped, total, s.bytes, s.waitingBytes)
			}
			s.push(sized(total+1, 5000))
			if r.take(s); r.received+r.dropped != total+1 || s.bytes != 0 {
				t.Errorf("a large one alone: %+v", r)
			}
		})
	}
	s := newSubscriber(1024, Disconnect)
	s.maxBytes = 1000
	s.push(sized(1, 600))
	s.push(sized(2, 600))
	if it, ok, err := s.next(); !ok || err != nil || it.message.env.number != 1 {
		t.Errorf("%v %v", ok, err)
	}
	if _, ok, err := s.next(); ok || !errors.Is(err, ErrSlow) {
		t.Errorf("%v %v", ok, err)
	}
}
