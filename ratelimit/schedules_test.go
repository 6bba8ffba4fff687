package ratelimit_test

import (
	"math/rand/v2"
	"strconv"

	_ "embed"
)

// schedule draws steps. What is drawn depends on what the model says.
type schedule struct {
	rng      *rand.Rand
	w        *world
	clock    int64
	policies []modelPolicy
	jumps    bool // clocks that go back, and far ahead
	changes  bool // policies that change
	foreign  bool // another program writes the sets
	blocks   bool
	ops      []op
	ids      int
}

var kinds = []modelKind{kindLog, kindSet, kindWindow, kindGCRA, kindLease}

func (s *schedule) policy(k modelKind) modelPolicy {
	p := modelPolicy{kind: k, limit: 1 + s.rng.Int64N(8)}
	windows := []int64{10_000, 10_001, 1_000_000, 60_000_000, 3_599_999_999, 31 * 24 * 3600 * 1_000_000}
	p.window = windows[s.rng.IntN(len(windows))]
	if s.rng.IntN(3) == 0 {
		p.window = 10_000 + s.rng.Int64N(100_000_000)
	}
	large := s.rng.IntN(30) == 0
	if large && k != kindGCRA { // more than one page, and more than one chunk
		p.limit = 300 + s.rng.Int64N(1200)
	}
	switch k {
	case kindWindow:
		p.extra = []int64{1, 2, 3, 5, 7, 10, 60}[s.rng.IntN(7)]
		if s.rng.IntN(50) == 0 {
			p.extra = 1000
		}
	case kindGCRA:
		p.limit = []int64{1, 2, 3, 7, 10, 60, 997, 1_000_000_000}[s.rng.IntN(8)]
		p.extra = 1 + s.rng.Int64N(12)
		if large && p.window/p.limit < 30_000_000 { // refills within a year
			p.extra = 1_000_000 - s.rng.Int64N(100)
		}
		if s.rng.IntN(2) == 0 {
			p.wait = s.rng.Int64N(max(1, min(2*p.extra*p.window/p.limit, 3_600_000_000)))
		}
	case kindLease:
		p.limit = 1 + s.rng.Int64N(4)
	}
	return p
}

// change draws another policy: anything, or a window that is somewhat longer or
// shorter.
func (s *schedule) change(p modelPolicy) modelPolicy {
	other := s.policy(p.kind)
	if s.rng.IntN(2) == 0 && p.limit < 100 && p.extra < 1000 {
		other = p
		other.window = min(max(p.window*(1+s.rng.Int64N(8))/4, 10_000), 31*24*3600*1_000_000)
		other.limit = max(1, p.limit+s.rng.Int64N(5)-2)
	}
	return other
}

// pace is about the time in which one is let in.
func (p modelPolicy) pace() int64 { return max(1, p.window/p.limit) }

func newSchedule(seed uint64) *schedule {
	s := &schedule{rng: rand.New(rand.NewPCG(seed, 1)), w: newWorld()}
	s.clock = 1_700_000_000_000_000 + s.rng.Int64N(1e15)
	s.jumps, s.changes = s.rng.IntN(2) == 0, s.rng.IntN(2) == 0
	s.foreign, s.blocks = s.rng.IntN(4) == 0, s.rng.IntN(3) == 0
	for range 1 + s.rng.IntN(slots) {
		s.policies = append(s.policies, s.policy(kinds[s.rng.IntN(len(kinds))]))
	}
	return s
}

// move moves the clock.
func (s *schedule) move(p modelPolicy) {
	switch n := s.rng.IntN(20); {
	case n < 6: // the same instant
	case n < 8:
		s.clock++
	case n == 8 && s.jumps: // a failover to a slower clock
		s.clock -= s.rng.Int64N(p.window)
	case n == 9 && s.jumps:
		s.clock -= s.rng.Int64N(1000)
	case n == 10 && s.jumps && s.rng.IntN(2) == 0: // a broken clock
		s.clock += (s.rng.Int64N(15) - 7) * p.window
	case n == 10 && s.jumps && len(s.ops) > 0: // an instant that was before
		s.clock = s.ops[max(0, len(s.ops)-1-s.rng.IntN(20))].clock
	case n == 11:
		s.clock += s.rng.Int64N(2 * p.window)
	case n == 12: // where something ends, to the microsecond or nearly
		s.clock += p.window - 1 + s.rng.Int64N(3)
	default:
		s.clock += s.rng.Int64N(2 * p.pace())
	}
	s.clock = max(s.clock, 0)
}

func (s *schedule) add(o op) replied {
	o.clock = s.clock
	s.ops = append(s.ops, o)
	return s.w.step(o)
}

func (s *schedule) id() string { s.ids++; return "n" + strconv.Itoa(s.ids) }

// next draws one step.
func (s *schedule) next() {
	slot := s.rng.IntN(len(s.policies))
	p := s.policies[slot]
	s.move(p)
	if s.changes && s.rng.IntN(15) == 0 {
		p = s.change(p)
		s.policies[slot] = p
	}
	a := ask{slot, p, 1}
	if s.rng.IntN(4) == 0 {
		a.cost = 1 + s.rng.Int64N(p.capacity())
	}
	n := s.rng.IntN(40)
	switch {
	case n == 0:
		s.add(op{kind: opReset, asks: []ask{a}})
		return
	case n == 1 && s.blocks:
		s.add(op{kind: opBlock, asks: []ask{a}, n: 1000 + s.rng.Int64N(2*p.window)})
		return
	case p.kind == kindLease:
		s.lease(a)
		return
	case n < 4 && s.foreign && p.kind == kindSet:
		score := float64(s.clock+s.rng.Int64N(3*p.window)-p.window) / 1e6
		// Whole microseconds: between two of them the wait is rounded to the
		// nearer one.
		score = setScore(int64(score*1e6 + 0.5))
		s.add(op{kind: opForeign, asks: []ask{a}, score: score, id: strconv.FormatFloat(score, 'g', 17, 64), n: max(1, p.window/1000)})
		return
	case n < 9 && len(s.policies) > 1:
		if s.group() {
			return
		}
	}
	o := op{kind: opAsk, asks: []ask{a}, verb: verbTake, how: takeAll, id: s.id()}
	switch {
	case n < 12:
		o.verb = verbLook
	case p.kind == kindGCRA && n < 16:
		o.how = takeSome
	case p.kind == kindGCRA && n < 18:
		o.verb, o.how = verbForce, giveBack
	case p.kind == kindGCRA && n < 20:
		o.verb, o.how = verbForce, takeHard
		o.asks[0].cost = 1 + s.rng.Int64N(2*p.extra)
	case p.kind == kindGCRA && n < 24:
		o.verb, o.n = verbBook, 0
		if p.wait > 0 {
			o.n = s.rng.Int64N(p.wait + 1)
		}
	}
	o.probe = o.verb == verbTake && s.rng.IntN(3) == 0 && !s.foreign
	if !s.foreign && s.rng.IntN(8) == 0 && o.verb != verbBook && o.how == takeAll {
		o.bound = p.lockOut()
	}
	out := s.add(o)
	if wait := out.reply[0]; wait > 0 && s.rng.IntN(2) == 0 {
		s.clock += wait
		if s.rng.IntN(4) == 0 {
			s.clock--
		}
	}
}

// lockOut is how long it takes at most, whatever the clock did, until one is
// let in.
func (p modelPolicy) lockOut() int64 {
	switch p.kind {
	case kindWindow:
		return p.window + (p.extra+1)*((p.window+p.extra-1)/p.extra)
	case kindGCRA:
		return p.wait + p.window/p.limit + 1
	}
	return 2 * p.window
}

func (s *schedule) lease(a ask) {
	a.cost = 0
	o := op{kind: opLease, asks: []ask{a}, verb: "1", id: s.id()}
	one := "n" + strconv.Itoa(max(0, s.ids-s.rng.IntN(12))) // held or not
	switch s.rng.IntN(9) {
	case 0:
		o.verb = "0"
	case 1, 2, 3: // prolong or release
		o.verb, o.id = []string{"2", "3"}[s.rng.IntN(2)], one
	case 4: // asked again, since no answer came
		o.id = one
	}
	o.probe = o.verb == "1" && s.rng.IntN(2) == 0
	if wait := s.add(o).reply[0]; o.verb == "1" && wait > 0 && s.rng.IntN(3) == 0 {
		s.clock += wait - s.rng.Int64N(2)
	}
}

func (s *schedule) group() bool {
	o := op{kind: opGroup, verb: verbTake, how: takeAll, id: s.id(), probe: s.rng.IntN(3) == 0 && !s.foreign}
	some := false
	for slot, p := range s.policies {
		if p.kind == kindLease {
			continue
		}
		a := ask{slot, p, 1}
		switch s.rng.IntN(4) {
		case 0:
			a.cost = 1 + s.rng.Int64N(p.capacity())
		case 1:
			a.cost = 0
		}
		some = some || a.cost > 0
		o.asks = append(o.asks, a)
	}
	if len(o.asks) < 2 || !some {
		return false
	}
	s.add(o)
	return true
}
