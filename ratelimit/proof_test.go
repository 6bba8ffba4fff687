package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "embed"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The proof: random schedules run through the shipped scripts on a real Redis,
// under a made-up clock, and through the models. Every number of every reply,
// and the state that is left, must be the same.
//
// A failure prints a seed. MADCROW_SEED=<seed> runs that schedule alone, and
// The soak tier runs a hundred times as many.

var soak = testkit.Soak

// opKind is what a step does.
type opKind uint8

const (
	opAsk opKind = iota
	opGroup
	opBlock
	opReset
	opLease
	opForeign // another program adds a member to a set
	opPlain   // or sends any other command; not in schedules
)

// ask is one limit that is asked.
type ask struct {
	slot   int
	policy modelPolicy
	cost   int64
}

// op is one step of a schedule. It holds all that it needs, so that a schedule
// can be cut down.
type op struct {
	kind  opKind
	clock int64
	asks  []ask
	verb  string
	how   string
	id    string   // nonce, or lease
	n     int64    // longest wait, length of a block, or life that the other program sets
	score float64  // of the other program
	plain []string // the command, without its key
	probe bool
	bound int64 // if not 0, one must be let in after that long
}

// world is the model of a few subjects' keys.
type world struct {
	states map[int]modelState
	blocks map[int]*modelBlock
	leases map[int]*leases
}

func newWorld() *world {
	return &world{map[int]modelState{}, map[int]*modelBlock{}, map[int]*leases{}}
}

func (w *world) state(a ask) modelState {
	if w.states[a.slot] == nil {
		w.states[a.slot] = newModel(a.policy.kind)
	}
	return w.states[a.slot]
}

func (w *world) block(slot int) *modelBlock {
	if w.blocks[slot] == nil {
		w.blocks[slot] = &modelBlock{}
	}
	return w.blocks[slot]
}

// replied is what a step replies, and the state of its keys then.
type replied struct {
	reply   []int64
	states  []string
	touched bool // some maintenance was due
	took    bool // something was counted
	blocked bool
}

// step does one step in the model.
func (w *world) step(o op) (out replied) {
	defer func() {
		for _, a := range o.asks {
			if o.kind == opLease {
				out.states = append(out.states, w.leases[a.slot].text(), w.block(a.slot).text())
			} else {
				out.states = append(out.states, w.state(a).text(), w.block(a.slot).text())
			}
		}
	}()
	a := o.asks[0]
	switch o.kind {
	case opBlock:
		*w.block(a.slot) = newBlock(o.clock, o.n)
		w.state(a)
		return replied{reply: []int64{1}, took: true}
	case opReset:
		w.states[a.slot], *w.block(a.slot) = newModel(a.policy.kind), modelBlock{}
		delete(w.leases, a.slot)
		return replied{took: true}
	case opForeign:
		s := w.state(a).(*setState)
		s.expire(o.clock)
		s.add(setMember{o.score, o.id})
		s.dies = o.clock/1000 + o.n
		w.block(a.slot).expire(o.clock)
		return replied{took: true}
	case opLease:
		if w.leases[a.slot] == nil {
			w.leases[a.slot] = &leases{ends: map[string]int64{}}
		}
		v := w.leases[a.slot].ask(o.clock, o.verb, a.policy.limit, a.policy.window, o.id, w.block(a.slot))
		return replied{reply: v[:], took: true}
	}
	free := true
	replies, takes, lefts := make([]modelReply, len(o.asks)), make([]func() modelReply, len(o.asks)), make([]int64, len(o.asks))
	for i, a := range o.asks {
		v, touched, take := w.state(a).decide(o.clock, a.policy, a.cost, o.how, o.id)
		left, rewritten := w.block(a.slot).left(o.clock)
		out.touched = out.touched || touched || rewritten
		if a.cost == 0 { // left out of the count
			v[0] = 0
		}
		v[0] = max(v[0], left)
		if o.verb == verbBook {
			v[3] = 0
		}
		free = free && v[0] == 0
		replies[i], takes[i], lefts[i] = v, take, left
	}
	out.took = o.verb == verbForce || o.verb == verbTake && free || o.verb == verbBook && replies[0][0] <= o.n
	for i := range o.asks {
		v := &replies[i]
		if out.took && o.asks[i].cost > 0 {
			after := takes[i]()
			v[1], v[2], v[3] = after[1], after[2], after[3]
			if o.verb == verbBook {
				v[3] = 1
			}
		}
		v[2] = max(v[2], lefts[i])
		if lefts[i] > 0 {
			v[1] = -1
			out.blocked = true
		}
		out.reply = append(out.reply, v[:]...)
	}
	return out
}

//go:embed testdata/batch.lua
var batchSource string

// The scripts as batch.lua numbers them.
var batchScripts = []*madcrow.Script{
	limitscript.Log, limitscript.Set, limitscript.Window, limitscript.GCRA,
	limitscript.Group, limitscript.Block, limitscript.Lease,
}

const (
	batchGroup = 5 + iota
	batchBlock
	batchLease
)

// batch is the shipped sources, each as a function, and the loop around them.
var batch = sync.OnceValue(func() *madcrow.Script {
	var b strings.Builder
	b.WriteString("local scripts = {\n")
	for _, s := range batchScripts {
		fmt.Fprintf(&b, "function(redis, KEYS, ARGV)\n%s\nend,\n", limitscript.Source(s))
	}
	b.WriteString("}\n" + batchSource)
	return madcrow.NewScript("limit_batch", b.String())
})

var batchNumber atomic.Int64

// args are what batch.lua reads of a step.
func (o op) args(keys []string) (args []string) {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	script, probe := 0, ""
	var own []string
	p := o.asks[0].policy
	limits := func(a ask) []string {
		extra := a.policy.extra
		if a.policy.kind == kindLog {
			extra = (a.policy.window+999)/1000 + 1 // a key's life in milliseconds
		}
		return []string{number(a.policy.limit), number(a.policy.window), number(extra), number(a.policy.wait)}
	}
	switch o.kind {
	case opAsk:
		script = int(p.kind)
		own = append([]string{o.verb, number(o.asks[0].cost)}, limits(o.asks[0])...)
		if p.kind == kindSet {
			own[4] = o.id
		}
		own = append(own, o.how)
		if o.verb == verbBook {
			own = append(own, number(o.n))
		}
	case opGroup:
		script = batchGroup
		own = []string{o.verb, o.id}
		for _, a := range o.asks {
			own = append(own, number(int64(a.policy.kind)), number(a.cost))
			own = append(own, limits(a)...)
		}
	case opBlock:
		script = batchBlock
		own = []string{number(o.n)}
	case opLease:
		script = batchLease
		own = []string{o.verb, number(p.limit), number(p.window), o.id}
	case opReset:
		own = []string{"DEL", keys[2*o.asks[0].slot], keys[2*o.asks[0].slot+1]}
	case opForeign:
		own = []string{"ZADD", keys[2*o.asks[0].slot], strconv.FormatFloat(o.score, 'g', 17, 64), o.id}
		probe = number(o.n)
	case opPlain:
		own = append([]string{o.plain[0], keys[2*o.asks[0].slot]}, o.plain[1:]...)
	}
	if o.probe {
		probe = "1"
	}
	args = append(args, strconv.Itoa(script), number(o.clock), probe, number(o.bound), strconv.Itoa(2*len(o.asks)))
	for _, a := range o.asks {
		args = append(args, strconv.Itoa(2*a.slot+1), strconv.Itoa(2*a.slot+2))
	}
	if o.kind == opBlock { // its script has the block's key alone
		args = append(args[:4], "1", strconv.Itoa(2*o.asks[0].slot+2))
	}
	args = append(args, strconv.Itoa(len(own)))
	return append(args, own...)
}

// slots is how many subjects a schedule has at most.
const slots = 4

// seen is what Redis says of a step.
type seen struct {
	reply  []int64
	states []string
	probes []int64
}

// inRedis runs a schedule through the shipped scripts.
func inRedis(ctx context.Context, r *madcrow.Redis, ops []op) ([]seen, error) {
	return runBatch(ctx, r, ops, "1")
}

// runBatch is inRedis; without states it is faster. On a machine that is very
// busy a long script looks like a server that is away; it is asked again then.
func runBatch(ctx context.Context, r *madcrow.Redis, ops []op, states string) (all []seen, err error) {
	for range 20 {
		if all, err = runOnce(ctx, r, ops, states); !errors.Is(err, madcrow.ErrUnavailable) {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	return all, err
}

func runOnce(ctx context.Context, r *madcrow.Redis, ops []op, states string) ([]seen, error) {
	n := batchNumber.Add(1)
	keys, args := []string{}, []string{states}
	for i := range slots {
		key := fmt.Sprintf("b%d:{%d}", n, i)
		keys = append(keys, key, key+":block")
	}
	for _, o := range ops {
		args = append(args, o.args(keys)...)
	}
	m, err := r.Eval(ctx, batch(), keys, args).Message()
	if err != nil {
		return nil, err
	}
	list, err := m.ToArray()
	if err != nil {
		return nil, err
	}
	all := make([]seen, len(list))
	for i, m := range list {
		three, err := m.ToArray()
		if err != nil {
			return nil, err
		}
		s := &all[i]
		if s.reply, err = ints(three[0]); err != nil {
			return nil, err
		}
		if s.states, err = three[1].AsStrSlice(); err != nil && states == "1" {
			return nil, err
		}
		if s.probes, err = ints(three[2]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ints reads an array; AsIntSlice of an empty one is an error.
func ints(m madcrow.Message) ([]int64, error) {
	list, err := m.ToArray()
	if err != nil {
		return nil, err
	}
	out := make([]int64, len(list))
	for i, m := range list {
		if out[i], err = m.AsInt64(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compare runs a schedule in both and says where they differ.
func compare(ctx context.Context, r *madcrow.Redis, ops []op) (at int, complaint string, err error) {
	found, err := inRedis(ctx, r, ops)
	if err != nil {
		return 0, "", err
	}
	w := newWorld()
	last := map[int][]string{} // the states of a slot before
	for i, o := range ops {
		want, got := w.step(o), found[i]
		if o.kind == opBlock {
			want.states = want.states[1:]
		}
		states := got.states
		for i, s := range states {
			states[i] = tidyScores(s)
		}
		var before []string
		for _, a := range o.asks {
			if last[a.slot] == nil {
				last[a.slot] = []string{"", ""}
			}
			before = append(before, last[a.slot]...)
		}
		switch {
		case o.kind != opReset && o.kind != opForeign && !slices.Equal(want.reply, got.reply):
			return i, fmt.Sprintf("the model replies %v, the script %v (retry, used, reset, extra)", want.reply, got.reply), nil
		case !slices.Equal(want.states, states):
			return i, fmt.Sprintf("the model keeps\n\t%q, the script\n\t%q", want.states, states), nil
		case !want.took && !want.touched && !slices.Equal(before, states):
			return i, fmt.Sprintf("nothing was taken, but\n\t%q became\n\t%q", before, states), nil
		}
		if c := o.complain(got, want); c != "" {
			return i, c + fmt.Sprintf(" (reply %v, state %q, probes %v)", got.reply, states, got.probes), nil
		}
		if o.kind == opBlock {
			last[o.asks[0].slot] = []string{w.state(o.asks[0]).text(), states[0]}
			if prev := before[0]; prev != last[o.asks[0].slot][0] {
				last[o.asks[0].slot][0] = prev
			}
			continue
		}
		for j, a := range o.asks {
			last[a.slot] = states[2*j : 2*j+2]
		}
	}
	return -1, "", nil
}

// tidyScores writes scores as the model does: servers differ in the last
// digits that they print.
func tidyScores(text string) string {
	words := strings.Fields(text)
	for i := 1; i < len(words); i += 2 {
		if f, err := strconv.ParseFloat(words[i], 64); err == nil && words[i-1] != "until" {
			words[i] = strconv.FormatFloat(f, 'g', 17, 64)
		}
	}
	return strings.Join(words, " ")
}

// complain checks what the probes found.
func (o op) complain(got seen, want replied) string {
	if len(got.probes) == 0 {
		return ""
	}
	if o.probe && got.probes[0] >= 0 {
		if before := got.probes[0]; before != 1 {
			return fmt.Sprintf("a microsecond before the wait ends the wait is %d, not 1", before)
		}
		if at := got.probes[1]; at > 0 {
			return fmt.Sprintf("denied at the wait ends, for %d more", at)
		}
	}
	if o.bound > 0 && !want.blocked && got.probes[4] != 0 {
		return fmt.Sprintf("locked out: after %d there is still no capacity for one, for %d more", o.bound, got.probes[4])
	}
	return ""
}

// String shows a step.
func (o op) String() string {
	names := [...]string{"ask", "group", "block", "reset", "lease", "foreign", "plain"}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s verb %q how %q n %d id %q", o.clock, names[o.kind], o.verb, o.how, o.n, o.id)
	for _, a := range o.asks {
		fmt.Fprintf(&b, " | slot %d %s cost %d %+v", a.slot, a.policy.kind, a.cost, a.policy)
	}
	return b.String()
}

// checker runs a schedule and says what is wrong, and at which step.
type checker func(ctx context.Context, r *madcrow.Redis, ops []op) (at int, complaint string, err error)

// shrink takes steps away as long as the two still differ.
func shrink(ctx context.Context, r *madcrow.Redis, ops []op, check checker) []op {
	for size := len(ops) / 2; size > 0; size /= 2 {
		for i := 0; i+size <= len(ops); {
			fewer := slices.Delete(slices.Clone(ops), i, i+size)
			if at, c, err := check(ctx, r, fewer); err == nil && c != "" {
				ops = fewer[:at+1]
			} else {
				i += size
			}
		}
	}
	return ops
}

// scheduleLength is how many steps a schedule has.
const scheduleLength = 150

// prove runs schedules until there were so many steps.
func prove(t *testing.T, r *madcrow.Redis, steps int, first uint64, check checker, make func(seed uint64) *schedule) {
	if text := os.Getenv("MADCROW_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, steps = seed, 1
	}
	var seed atomic.Uint64
	var done atomic.Int64
	seed.Store(first)
	start := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for done.Load() < int64(steps) && !t.Failed() {
				n := seed.Add(1) - 1
				s := make(n)
				if many := done.Add(int64(len(s.ops))); many/500_000 > (many-int64(len(s.ops)))/500_000 {
					t.Logf("%d steps", many)
				}
				at, complaint, err := check(t.Context(), r, s.ops)
				if err != nil {
					t.Errorf("MADCROW_SEED=%d: %v", n, err)
					return
				}
				if complaint == "" {
					continue
				}
				ops := shrink(t.Context(), r, s.ops[:at+1], check)
				_, complaint, _ = check(t.Context(), r, ops)
				var b strings.Builder
				for _, o := range ops {
					fmt.Fprintf(&b, "\n\t%v", o)
				}
				t.Errorf("MADCROW_SEED=%d: after these steps%s\n%s", n, b.String(), complaint)
			}
		})
	}
	wg.Wait()
	t.Logf("%d steps in %v", done.Load(), time.Since(start).Round(time.Millisecond))
}

// proofRedis is a server for this, which may think for long.
func proofRedis(t testing.TB) *madcrow.Redis {
	t.Helper()
	cfg := madcrowtest.StartRedis(t).Config()
	cfg.CommandTimeout, cfg.Require = 30*time.Second, true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

// stepsOf is how many steps a proof takes.
func stepsOf(usual int) int {
	if soak {
		return 100 * usual
	}
	return usual
}

func TestScripts_EqualTheModelsOnRandomSchedules(t *testing.T) {
	t.Parallel()
	prove(t, proofRedis(t), stepsOf(70_000), 1, compare, func(seed uint64) *schedule {
		s := newSchedule(seed)
		for len(s.ops) < scheduleLength {
			s.next()
		}
		return s
	})
}
