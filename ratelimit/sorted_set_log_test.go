package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// Beside FastAPI Madcrow on one key. It takes its time from its own clock,
// looks, and adds a member whether it admits or not.

// beside is two programs that ask for one subject.
type beside struct {
	ours, theirs int64 // how many each asks for in a window
	ahead        int64 // their clock, microseconds
}

// share is what one of them got.
type share struct{ asked, admitted int64 }

const (
	besideLimit   = 100
	besideWindow  = 60_000_000
	besideWindows = 5
)

// run plays it and checks, at each of our questions, that nothing of theirs was
// deleted early and that we deny only for what is there.
func (b beside) run(t *testing.T, r *madcrow.Redis) (ours, theirs share, most int64) {
	t.Helper()
	const start = 1_700_000_000_000_000
	p := modelPolicy{kind: kindSet, limit: besideLimit, window: besideWindow}
	plain := func(at int64, args ...string) op {
		return op{kind: opPlain, clock: at, asks: []ask{{0, p, 1}}, plain: args}
	}
	var ops []op
	who := map[int]bool{} // the steps that decide, true: they
	every := func(n int64) int64 { return besideWindow / n }
	for we, they := int64(start), int64(start+1); min(we, they) < start+besideWindows*besideWindow; {
		if we < they {
			who[len(ops)] = false
			ops = append(ops, op{kind: opAsk, clock: we, asks: []ask{{0, p, 1}}, verb: verbTake, how: takeAll, id: strconv.FormatInt(we, 10)})
			we += every(b.ours)
			continue
		}
		// time.time(); zremrangebyscore; zcard; zadd; expire
		now := float64(they+b.ahead) / 1e6
		name := strconv.FormatFloat(now, 'f', -1, 64)
		ops = append(ops, plain(they, "ZREMRANGEBYSCORE", "0", strconv.FormatFloat(now-besideWindow/1e6, 'f', -1, 64)))
		who[len(ops)] = true
		ops = append(ops, plain(they, "ZCARD"), op{kind: opForeign, clock: they, asks: []ask{{0, p, 1}}, score: now, id: name, n: besideWindow / 1000})
		they += every(b.theirs)
	}
	found, err := runBatch(t.Context(), r, ops, "0")
	if err != nil {
		t.Fatal(err)
	}
	var admitted []int64
	var scores []float64 // what must be there
	for i, o := range ops {
		reply := found[i].reply
		they, decides := who[i]
		switch {
		case o.kind == opForeign:
			scores = append(scores, o.score)
		case o.kind == opPlain && !decides: // they remove what is old to them
			old := float64(o.clock+b.ahead)/1e6 - besideWindow/1e6
			scores = slices.DeleteFunc(scores, func(s float64) bool { return s <= old })
		case they:
			theirs.asked++
			if reply[0] < besideLimit {
				theirs.admitted++
				admitted = append(admitted, o.clock)
			}
		default:
			ours.asked++
			scores = slices.DeleteFunc(scores, func(s float64) bool { return s <= setScore(o.clock-besideWindow) })
			there := int64(len(scores))
			if denied := reply[0] > 0; denied != (there >= besideLimit) {
				t.Fatalf("denied %v beside %d entries that are not a window old", denied, there)
			} else if !denied {
				there++
				ours.admitted++
				admitted = append(admitted, o.clock)
				scores = append(scores, setScore(o.clock))
			}
			if reply[1] != there {
				t.Fatalf("%d entries, %d must be there: something was deleted early", reply[1], there)
			}
		}
	}
	for i := range admitted {
		n := int64(0)
		for j := i; j >= 0 && admitted[j] > admitted[i]-besideWindow; j-- {
			n++
		}
		most = max(most, n)
	}
	return ours, theirs, most
}

func TestSortedSetLog_BesidePythonDeletesNothingEarlyAndDeniesOnlyForWhatIsThere(t *testing.T) {
	t.Parallel()
	r := proofRedis(t)
	var b strings.Builder
	b.WriteString("| each minute they ask / we ask | their clock | they admit | we admit | most in any minute |\n|---|---|---|---|---|\n")
	for _, ask := range [][2]int64{{30, 50}, {50, 150}, {150, 50}} {
		for _, ahead := range []int64{0, 5_000_000, -5_000_000, 59_000_000, -59_000_000} {
			ours, theirs, most := beside{ours: ask[1], theirs: ask[0], ahead: ahead}.run(t, r)
			fmt.Fprintf(&b, "| %d / %d | %+d s | %d of %d | %d of %d | %d |\n", ask[0], ask[1], ahead/1_000_000,
				theirs.admitted, theirs.asked, ours.admitted, ours.asked, most)
			if ask[0]+ask[1] <= besideLimit && ahead == 0 && (ours.admitted != ours.asked || theirs.admitted != theirs.asked) {
				t.Errorf("below the limit: we admit %+v, they %+v", ours, theirs)
			}
		}
	}
	t.Logf("limit %d a minute, %d minutes\n%s", besideLimit, besideWindows, b.String())
}

// A Python whose clock is wrong by hours locks no subject out for longer than its
// own key lives.
func TestSortedSetLog_APythonWithABrokenClockLocksOutNoLongerThanItsKeyLives(t *testing.T) {
	t.Parallel()
	r := proofRedis(t)
	const clock, hour = 1_700_000_000_000_000, 3_600_000_000
	p := modelPolicy{kind: kindSet, limit: 5, window: besideWindow}
	var ops []op
	for i := range int64(10) {
		score := float64(clock+hour+i) / 1e6
		ops = append(ops, op{kind: opForeign, clock: clock, asks: []ask{{0, p, 1}}, score: score, id: strconv.FormatFloat(score, 'f', -1, 64), n: besideWindow / 1000})
	}
	for at := int64(clock); at <= clock+3*besideWindow; at += besideWindow / 20 {
		ops = append(ops, op{kind: opAsk, clock: at, asks: []ask{{0, p, 1}}, verb: verbTake, how: takeAll, id: strconv.FormatInt(at, 10)})
	}
	found, err := runBatch(t.Context(), r, ops, "0")
	if err != nil {
		t.Fatal(err)
	}
	first := slices.IndexFunc(found[10:], func(s seen) bool { return s.reply[0] == 0 })
	if first < 0 || ops[10+first].clock > clock+besideWindow+besideWindow/20 {
		t.Errorf("the first is let in at question %d", first)
	}
}

// Another program's score may be anything, and its key may have no expiry: no wait
// ends in the past, and no subject is locked out for ever.
func TestSortedSetLog_ForeignScoresWithoutAnEnd(t *testing.T) {
	r := open(t)
	for i, score := range []string{"inf", "1e300", "1e18", "1764437602123", "1764437602123456"} {
		l, err := ratelimit.New(r, "foreign."+strconv.Itoa(i), ratelimit.Options{Rate: ratelimit.PerMinute(1), FailPolicy: madcrow.FailClosed, Algorithm: ratelimit.SortedSetLog(), DeniedSubjects: -1})
		if err != nil {
			t.Fatal(err)
		}
		key := r.Config().KeyPrefix + "m1:limit:" + l.Name() + ":s:{u}"
		do := func(args ...string) madcrow.Message {
			t.Helper()
			m, err := r.Do(t.Context(), r.B().Arbitrary(args[0]).Keys(key).Args(args[1:]...).Build()).Message()
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		do("ZADD", score, "x")
		d, err := l.Allow(t.Context(), "u")
		if err != nil || d.Allowed || d.RetryAfter < 24*time.Hour {
			t.Errorf("%s: %+v, %v", score, d, err)
		}
		life := do("PTTL")
		if left, err := life.AsInt64(); err != nil || left <= 0 || left > 2*60_000+1 {
			t.Errorf("%s: the key lives for %d ms, two windows are the most", score, left)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := l.Wait(ctx, "u"); !errors.Is(err, ratelimit.ErrTooLate) {
			t.Errorf("%s: Wait: %v", score, err)
		}
		cancel()
	}
}
