package ratelimit_test

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/madcrow-go/madcrow"
)

// The promises themselves, without the models: from what the scripts replied
// and when, and nothing else. The clock of these schedules does not go back.

// admission is what was let in, and when.
type admission struct{ at, cost, window int64 }

// sum is how much was let in after a time.
func sum(all []admission, after int64) (n int64) {
	for _, a := range all {
		if a.at > after {
			n += a.cost
		}
	}
	return n
}

// fits says whether a token bucket has capacity for cost at a time: in no stretch
// of time up to then is more let in than the burst and what came in it. What
// was booked counts from when it may act, which is rounded to whole microseconds;
// so slack of one may be given.
func (p modelPolicy) fits(all []admission, at, cost, slack int64) bool {
	total := cost
	over := func(since int64) bool {
		// total > burst + (at - since) * limit / window
		left := new(big.Int).Mul(big.NewInt(total-p.extra), big.NewInt(p.window))
		return left.Cmp(new(big.Int).Mul(big.NewInt(at-since+slack), big.NewInt(p.limit))) > 0
	}
	if cost > p.extra {
		return false
	}
	for i := len(all) - 1; i >= 0; i-- {
		total += all[i].cost
		if over(all[i].at) {
			return false
		}
	}
	return true
}

// mustAdmit and mustDeny are the rules of each algorithm, by what was let in.
func (p modelPolicy) mustAdmit(all []admission, at, cost int64) bool {
	switch p.kind {
	case kindWindow: // given back at most a bucket late
		width := (p.window + p.extra - 1) / p.extra
		return sum(all, at-(p.extra+1)*width)+cost <= p.limit
	case kindGCRA:
		return p.fits(all, at, cost, 0)
	}
	return sum(all, at-p.window)+cost <= p.limit
}

func (p modelPolicy) mustDeny(all []admission, at, cost int64) bool {
	if p.kind == kindGCRA {
		return !p.fits(all, at, cost, min(p.wait, 1))
	}
	return sum(all, at-p.window)+cost > p.limit
}

// rules checks a schedule of one subject, whose policy stays.
func rules(ctx context.Context, r *madcrow.Redis, ops []op) (at int, complaint string, err error) {
	found, err := inRedis(ctx, r, ops)
	if err != nil {
		return 0, "", err
	}
	var all []admission
	for i, o := range ops {
		p, cost, reply := o.asks[0].policy, o.asks[0].cost, found[i].reply
		retry := reply[0]
		free := retry == 0
		must, mustNot := p.mustAdmit(all, o.clock, cost), p.mustDeny(all, o.clock, cost)
		if free && mustNot || !free && must {
			return i, fmt.Sprintf("let in %v, must %v, must not %v (%v); before: %v", free, must, mustNot, reply, all), nil
		}
		if !free && p.kind != kindWindow && (p.mustAdmit(all, o.clock+retry-1, cost) || p.mustDeny(all, o.clock+retry, cost)) {
			return i, fmt.Sprintf("the wait is %d; before: %v", retry, all), nil
		}
		if c := o.complain(found[i], replied{}); c != "" {
			return i, c, nil
		}
		booked := o.verb == verbBook && reply[3] == 1
		if booked != (o.verb == verbBook && retry <= o.n) {
			return i, fmt.Sprintf("booked %v, at most %d: %v", booked, o.n, reply), nil
		}
		if o.verb == verbTake && free || booked {
			all = append(all, admission{o.clock + retry, cost, p.window})
		}
	}
	return -1, "", nil
}

// calm is a schedule of one subject under a clock that does not go back.
func calm(seed uint64, changes bool) *schedule {
	s := &schedule{rng: rand.New(rand.NewPCG(seed, 2)), w: newWorld(), changes: changes}
	s.clock = 1_700_000_000_000_000 + s.rng.Int64N(1e15)
	s.policies = []modelPolicy{s.policy(kinds[s.rng.IntN(4)])}
	for len(s.ops) < scheduleLength {
		p := s.policies[0]
		s.move(p)
		if changes && s.rng.IntN(10) == 0 {
			p = s.change(p)
			s.policies[0] = p
		}
		o := op{kind: opAsk, asks: []ask{{0, p, 1}}, verb: verbTake, how: takeAll, id: s.id(), probe: s.rng.IntN(4) == 0}
		if s.rng.IntN(4) == 0 {
			o.asks[0].cost = 1 + s.rng.Int64N(p.capacity())
		}
		switch n := s.rng.IntN(10); {
		case n == 0:
			o.verb, o.probe = verbLook, false
		case n < 3 && p.wait > 0:
			o.verb, o.n, o.probe = verbBook, s.rng.Int64N(p.wait+1), false
		}
		if wait := s.add(o).reply[0]; wait > 0 && s.rng.IntN(2) == 0 {
			s.clock += wait
		}
	}
	return s
}

func TestScripts_AdmitExactlyWhatTheRulesSayWhileTheClockDoesNotGoBack(t *testing.T) {
	t.Parallel()
	prove(t, proofRedis(t), stepsOf(20_000), 1, rules, func(seed uint64) *schedule { return calm(seed, false) })
}

// debts checks that a policy that changed counts all that was let in before, as
// far back as every policy since then looked.
func debts(ctx context.Context, r *madcrow.Redis, ops []op) (at int, complaint string, err error) {
	found, err := inRedis(ctx, r, ops)
	if err != nil {
		return 0, "", err
	}
	var all []admission
	for i, o := range ops {
		p, cost := o.asks[0].policy, o.asks[0].cost
		if p.kind == kindGCRA { // its debt is time, and a smaller burst forgives some: see the model
			return -1, "", nil
		}
		owed := int64(0)
		for j := range all {
			a := &all[j]
			a.window = min(a.window, p.window)
			if a.at > o.clock-a.window {
				owed += a.cost
			}
		}
		free := found[i].reply[0] == 0
		if free && owed+cost > p.limit {
			return i, fmt.Sprintf("let in %d beside %d, the limit is %d", cost, owed, p.limit), nil
		}
		if c := o.complain(found[i], replied{}); c != "" {
			return i, c, nil
		}
		if o.verb == verbTake && free {
			all = append(all, admission{o.clock, cost, p.window})
		}
	}
	return -1, "", nil
}

func TestScripts_APolicyThatChangesKeepsItsDebt(t *testing.T) {
	t.Parallel()
	prove(t, proofRedis(t), stepsOf(10_000), 1, debts, func(seed uint64) *schedule { return calm(seed, true) })
}

// holders checks that no more hold a place at a time than may.
func holders(ctx context.Context, r *madcrow.Redis, ops []op) (at int, complaint string, err error) {
	found, err := inRedis(ctx, r, ops)
	if err != nil {
		return 0, "", err
	}
	ends := map[string]int64{}
	for i, o := range ops {
		p, reply := o.asks[0].policy, found[i].reply
		held := int64(0)
		for id, end := range ends {
			if end > o.clock {
				held++
			} else {
				delete(ends, id)
			}
		}
		_, has := ends[o.id]
		switch {
		case o.verb == "1" && reply[0] == 0:
			ends[o.id] = o.clock + p.window
			if !has {
				held++
			}
		case o.verb == "1" && held < p.limit:
			return i, fmt.Sprintf("%d of %d are held, and none is free: %v", held, p.limit, reply), nil
		case o.verb == "2" && has != (reply[0] == 1), o.verb == "3" && has != (reply[0] == 1):
			return i, fmt.Sprintf("held %v, reply %v", has, reply), nil
		case o.verb == "2" && has:
			ends[o.id] = o.clock + p.window
		case o.verb == "3" && has:
			delete(ends, o.id)
			held--
		}
		if held > p.limit || reply[1] != held {
			return i, fmt.Sprintf("%d hold a place, %d may: %v", held, p.limit, reply), nil
		}
		if c := o.complain(found[i], replied{}); c != "" {
			return i, c, nil
		}
	}
	return -1, "", nil
}

func TestScripts_NoMoreHoldAPlaceThanMay(t *testing.T) {
	t.Parallel()
	prove(t, proofRedis(t), stepsOf(5_000), 1, holders, func(seed uint64) *schedule {
		s := &schedule{rng: rand.New(rand.NewPCG(seed, 3)), w: newWorld()}
		s.clock = 1_700_000_000_000_000 + s.rng.Int64N(1e15)
		s.policies = []modelPolicy{s.policy(kindLease)}
		for len(s.ops) < scheduleLength {
			s.move(s.policies[0])
			s.lease(ask{0, s.policies[0], 0})
		}
		return s
	})
}
