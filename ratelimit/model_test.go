package ratelimit_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// The models: what the scripts shall do, plainly. Times are microseconds.

// modelKind is an algorithm, by the number that the scripts know it by.
type modelKind uint8

const (
	kindLog modelKind = iota + 1
	kindSet
	kindWindow
	kindGCRA
	kindLease // a concurrency limit, in these tests alone
)

func (k modelKind) String() string {
	return [...]string{"", "log", "set", "window", "gcra", "lease"}[k]
}

// Verbs of the scripts, and how the GCRA takes.
const (
	verbLook  = "0"
	verbTake  = "1"
	verbForce = "2"
	verbBook  = "3"

	takeAll  = "0"
	giveBack = "1"
	takeHard = "2"
	takeSome = "3"
)

// modelPolicy is a limit with its numbers.
type modelPolicy struct {
	kind          modelKind
	limit, window int64
	extra         int64 // buckets or burst
	wait          int64 // how far ahead may be booked
}

// capacity is how much the policy lets in at once.
func (p modelPolicy) capacity() int64 {
	if p.kind == kindGCRA {
		return p.extra
	}
	return p.limit
}

// modelReply is what a script says of one limit.
type modelReply [4]int64 // retry, used, reset, extra

// modelState is the model of one key.
type modelState interface {
	// judge says what asking for cost would give, and how to take it.
	// Maintenance is done at once; touched tells that there was some.
	decide(clock int64, p modelPolicy, cost int64, how, nonce string) (v modelReply, touched bool, take func() modelReply)
	// text is the state as the key shows it.
	text() string
}

func newModel(k modelKind) modelState {
	switch k {
	case kindLog:
		return &logState{}
	case kindSet:
		return &setState{}
	case kindWindow:
		return &windowState{}
	}
	return &gcraState{}
}

// millisLife is when a key dies that must live for us.
func millisLife(clock, us int64) int64 { return clock/1000 + (us+999)/1000 + 1 }

// keptFree is how many entries may stay in a list though they are free.
const keptFree = 2

// logState is the times of what was admitted, the newest last.
type logState struct {
	at   []int64
	dies int64
}

func (s *logState) decide(clock int64, p modelPolicy, cost int64, _, _ string) (v modelReply, touched bool, take func() modelReply) {
	before := len(s.at)
	if clock/1000 > s.dies {
		s.at = nil
	}
	now := clock
	if n := len(s.at); n > 0 && s.at[n-1] > clock {
		if s.at[n-1]-clock <= p.window {
			now = s.at[n-1]
		} else {
			s.at = slices.DeleteFunc(s.at, func(at int64) bool { return at > clock })
		}
	}
	free := 0
	for free < len(s.at) && s.at[free] <= now-p.window {
		free++
	}
	if free > keptFree {
		s.at, free = s.at[free:], 0
	}
	live := s.at[free:]
	count := int64(len(live))
	v[1] = count
	if count > 0 {
		v[2] = live[count-1] + p.window - clock
	}
	touched = before != len(s.at)
	if count+cost > p.limit {
		v[0] = live[count+cost-p.limit-1] + p.window - clock
		if dies := millisLife(clock, v[2]); count > 0 && s.dies < dies-1 {
			s.dies, touched = dies, true // the window became longer
		}
	}
	return v, touched, func() modelReply {
		s.at = append(s.at, slices.Repeat([]int64{now}, int(cost))...)
		reset := now + p.window - clock
		s.dies = millisLife(clock, reset)
		return modelReply{v[0], count + cost, reset, 0}
	}
}

func (s *logState) text() string {
	if len(s.at) == 0 {
		return ""
	}
	var b strings.Builder
	for _, at := range slices.Backward(s.at) {
		fmt.Fprintf(&b, "%d ", at)
	}
	return fmt.Sprintf("%suntil %d", b.String(), s.dies)
}

// setState is the members of a sorted set, in its order.
type setState struct {
	members []setMember
	dies    int64
}

type setMember struct {
	score float64
	name  string
}

func (m setMember) ours() bool { return strings.HasPrefix(m.name, "m:") }

func (m setMember) at() int64 { return int64(m.score*1e6 + 0.5) }

// setScore is the score of a time, as Redis keeps it.
func setScore(us int64) float64 {
	us = max(us, 0)
	f, err := strconv.ParseFloat(fmt.Sprintf("%d.%06d", us/1e6, us%1e6), 64)
	if err != nil {
		panic(err)
	}
	return f
}

func (s *setState) expire(clock int64) {
	if clock/1000 > s.dies {
		s.members = nil
	}
}

func (s *setState) decide(clock int64, p modelPolicy, cost int64, _, nonce string) (v modelReply, touched bool, take func() modelReply) {
	before := len(s.members)
	s.expire(clock)
	now := clock
	for _, m := range slices.Backward(s.members) {
		if !m.ours() {
			continue
		}
		if at := m.at(); at > clock && at-clock <= p.window {
			now = at
		} else if at > clock {
			s.remove(func(m setMember) bool { return m.ours() && m.score > setScore(clock) })
		}
		break
	}
	s.remove(func(m setMember) bool { return m.score <= setScore(now-p.window) })
	count := int64(len(s.members))
	left := func(last int64) int64 { return min(max(last+p.window-clock, 1), 2*p.window) }
	last := int64(0)
	v[1] = count
	if count > 0 {
		last = s.members[count-1].at()
		v[2] = left(last)
	}
	touched = before != len(s.members)
	if count+cost > p.limit {
		v[0] = max(s.members[count+cost-p.limit-1].at()+p.window-clock, 1)
		if dies := millisLife(clock, v[2]); count > 0 && last <= now && s.dies < dies-1 {
			s.dies, touched = dies, true
		}
	}
	return v, touched, func() modelReply {
		for i := range cost {
			name := "m:" + nonce
			if cost > 1 {
				name = fmt.Sprintf("m:%s:%d", nonce, i+1)
			}
			s.add(setMember{setScore(now), name})
		}
		reset := left(max(last, now))
		s.dies = millisLife(clock, reset)
		return modelReply{v[0], count + cost, reset, 0}
	}
}

func (s *setState) add(m setMember) {
	s.remove(func(o setMember) bool { return o.name == m.name })
	s.members = append(s.members, m)
	slices.SortFunc(s.members, func(a, b setMember) int {
		return cmp.Or(cmp.Compare(a.score, b.score), strings.Compare(a.name, b.name))
	})
}

func (s *setState) remove(gone func(setMember) bool) { s.members = slices.DeleteFunc(s.members, gone) }

func (s *setState) text() string {
	if len(s.members) == 0 {
		return ""
	}
	var b strings.Builder
	for _, m := range s.members {
		fmt.Fprintf(&b, "%s %s ", m.name, strconv.FormatFloat(m.score, 'g', 17, 64))
	}
	return fmt.Sprintf("%suntil %d", b.String(), s.dies)
}

// windowState is counts by the index of their bucket.
type windowState struct {
	width, newest int64
	counts        map[int64]int64
	dies          int64
}

func (s *windowState) decide(clock int64, p modelPolicy, cost int64, _, _ string) (v modelReply, touched bool, take func() modelReply) {
	width := (p.window + p.extra - 1) / p.extra
	index := clock / width
	if s.counts != nil && clock/1000 > s.dies {
		s.counts, touched = nil, true
	}
	counts := map[int64]int64{}
	stale := false
	if s.counts != nil {
		ahead := s.newest*s.width - clock
		stale = s.width == width && ahead > p.window
		if s.width == width && ahead > 0 && !stale {
			index = s.newest
		}
		for bucket, n := range s.counts {
			if s.width != width { // by the last instant it may have come
				if bucket = ((bucket+1)*s.width - 1) / width; bucket > index {
					bucket, stale = index, true
				}
			}
			if bucket <= index && bucket >= index-p.extra {
				counts[bucket] += n
			}
		}
	}
	leaves := func(bucket int64) int64 { return (bucket+p.extra+1)*width - clock }
	store := func() {
		s.width, s.newest, s.counts = width, index, counts
		s.dies = millisLife(clock, leaves(index))
	}
	buckets := slices.Sorted(maps.Keys(counts))
	for _, b := range buckets {
		v[1] += counts[b]
		v[2] = leaves(b)
	}
	if stale {
		touched = true
		if s.counts = nil; v[1] > 0 {
			store()
		}
	}
	over := v[1] + cost - p.limit
	for _, b := range buckets {
		if over <= 0 {
			break
		}
		over -= counts[b]
		v[0] = leaves(b)
	}
	if dies := millisLife(clock, v[2]); v[0] > 0 && s.counts != nil && s.dies < dies-1 {
		s.dies, touched = dies, true
	}
	return v, touched, func() modelReply {
		counts[index] += cost
		store()
		return modelReply{v[0], v[1] + cost, leaves(index), 0}
	}
}

func (s *windowState) text() string {
	if s.counts == nil {
		return ""
	}
	oldest := slices.Min(slices.Collect(maps.Keys(s.counts)))
	var counts []string
	for b := s.newest; b >= oldest; b-- {
		counts = append(counts, strconv.FormatInt(s.counts[b], 10))
	}
	return fmt.Sprintf("%d;%d;%s until %d", s.width, s.newest, strings.Join(counts, ","), s.dies)
}

// gcraState is the theoretical arrival time, in exact fractions.
type gcraState struct {
	tat   *big.Rat // nil: none
	limit int64    // of who stored it
	dies  int64
}

func ratInt(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func ratPlus(a, b *big.Rat) *big.Rat { return new(big.Rat).Add(a, b) }

func ratMinus(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }

func ratLater(a, b *big.Rat) bool { return a.Cmp(b) > 0 }

// ratFloor splits off the whole part, which is not negative.
func ratFloor(r *big.Rat) (whole int64, rest *big.Rat) {
	n := new(big.Int).Quo(r.Num(), r.Denom())
	return n.Int64(), ratMinus(r, new(big.Rat).SetInt(n))
}

func ratCeil(r *big.Rat) int64 {
	whole, rest := ratFloor(r)
	return whole + int64(rest.Sign())
}

func (s *gcraState) decide(clock int64, p modelPolicy, cost int64, how, _ string) (v modelReply, touched bool, take func() modelReply) {
	tokens := func(n int64) *big.Rat { return new(big.Rat).Mul(big.NewRat(p.window, p.limit), ratInt(n)) }
	now := ratInt(clock)
	full := ratPlus(now, tokens(p.extra))
	end := ratPlus(full, ratInt(p.wait))
	if s.tat != nil && clock/1000 > s.dies {
		s.tat, touched = nil, true
	}
	tat := now
	if s.tat != nil {
		tat = s.tat
		if s.limit != p.limit {
			tat = ratInt(ratCeil(tat))
		}
		if ratLater(tat, end) { // kept at once, so that it comes closer
			tat = end
			s.tat, s.limit, s.dies, touched = tat, p.limit, gcraDies(clock, tat), true
		}
		if ratLater(now, tat) {
			tat = now
		}
	}
	// split is a number of microseconds as replies have it.
	split := func(r *big.Rat) (whole, rest int64) {
		whole, part := ratFloor(r)
		rest, part = ratFloor(part.Mul(part, ratInt(p.limit)))
		if part.Sign() != 0 {
			panic("a fraction that is not of the limit")
		}
		return whole, rest
	}
	free := func(tat *big.Rat) (whole, rest int64) {
		if ratLater(tat, full) {
			return 0, 0
		}
		return split(ratMinus(full, tat))
	}
	store := func(to *big.Rat) (used, reset, rest int64) {
		if ratLater(to, now) {
			s.tat, s.limit, s.dies = to, p.limit, gcraDies(clock, to)
		} else {
			s.tat, to = nil, now
		}
		used, rest = free(to)
		return used, ratCeil(to) - clock, rest
	}
	used, rest := free(tat)
	v = modelReply{0, used, ratCeil(tat) - clock, rest}
	if how == giveBack {
		v[2] = 0
		return v, touched, func() modelReply {
			used, reset, rest := store(ratMinus(tat, tokens(cost)))
			return modelReply{0, used, reset, rest}
		}
	}
	taken := int64(0)
	if how == takeSome {
		if capacity := ratMinus(full, tat); capacity.Sign() > 0 {
			taken, _ = ratFloor(capacity.Quo(capacity, tokens(1)))
			taken = min(taken, cost)
		}
		cost = max(taken, 1)
	}
	to := ratPlus(tat, tokens(cost))
	if ratLater(to, full) {
		v[0] = ratCeil(ratMinus(to, full))
		if how == takeHard {
			v[0], to = 0, full
			if ratLater(tat, to) {
				to = tat
			}
		}
	}
	return v, touched, func() modelReply {
		used, reset, rest := store(to)
		return modelReply{v[0], used, reset, taken*p.limit + rest}
	}
}

func gcraDies(clock int64, tat *big.Rat) int64 {
	whole, _ := ratFloor(tat)
	return millisLife(clock, whole-clock+1)
}

func (s *gcraState) text() string {
	if s.tat == nil {
		return ""
	}
	whole, part := ratFloor(s.tat)
	rest, _ := ratFloor(part.Mul(part, ratInt(s.limit)))
	return fmt.Sprintf("%d:%d:%d until %d", whole, rest, s.limit, s.dies)
}

// modelBlock is one subject's block.
type modelBlock struct{ until, length, dies int64 }

// left says how long it lasts still.
func (b *modelBlock) left(clock int64) (us int64, touched bool) {
	touched = b.expire(clock)
	if b.until-clock > b.length {
		*b, touched = newBlock(clock, b.length), true
	}
	return max(b.until-clock, 0), touched
}

func (b *modelBlock) expire(clock int64) (gone bool) {
	if gone = b.length > 0 && clock/1000 > b.dies; gone {
		*b = modelBlock{}
	}
	return gone
}

func newBlock(clock, length int64) modelBlock {
	return modelBlock{clock + length, length, millisLife(clock, length)}
}

func (b *modelBlock) text() string {
	if b.length == 0 {
		return ""
	}
	return fmt.Sprintf("%d:%d until %d", b.until, b.length, b.dies)
}

// leases are who holds a place, and until when.
type leases struct {
	ends map[string]int64
	dies int64
}

func (s *leases) ask(clock int64, verb string, limit, length int64, id string, b *modelBlock) modelReply {
	b.expire(clock)
	maps.DeleteFunc(s.ends, func(_ string, end int64) bool { return end <= clock })
	if len(s.ends) == 0 || clock/1000 > s.dies { // the key is gone
		clear(s.ends)
		s.dies = 0
	}
	for id, end := range s.ends {
		s.ends[id] = min(end, clock+length)
	}
	var v modelReply
	_, held := s.ends[id]
	switch verb {
	case "2":
		if held {
			s.ends[id] = clock + length
			v[0] = 1
		}
	case "3":
		if held {
			delete(s.ends, id)
			v[0] = 1
		}
	default:
		if used := int64(len(s.ends)); used >= limit && !held {
			v[0] = slices.Sorted(maps.Values(s.ends))[used-limit] - clock
		}
		left, _ := b.left(clock)
		v[0] = max(v[0], left)
		if v[0] == 0 && verb == "1" {
			s.ends[id] = clock + length
		}
		if left > 0 {
			v[1] = -1
		}
	}
	if v[1] == 0 {
		v[1] = int64(len(s.ends))
	}
	if len(s.ends) > 0 {
		v[2] = slices.Max(slices.Collect(maps.Values(s.ends))) - clock
		if dies := millisLife(clock, v[2]); s.dies < dies-1 {
			s.dies = dies
		}
	} else {
		s.dies = 0
	}
	return v
}

func (s *leases) text() string {
	if len(s.ends) == 0 {
		return ""
	}
	ids := slices.SortedFunc(maps.Keys(s.ends), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.ends[a], s.ends[b]), strings.Compare(a, b))
	})
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&b, "%s %d ", id, s.ends[id])
	}
	return fmt.Sprintf("%suntil %d", b.String(), s.dies)
}
