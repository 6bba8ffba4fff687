package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// limitCodes are the parts of keys that name algorithms.
var limitCodes = map[string]string{algorithmLog: "l", algorithmSet: "s", algorithmWindow: "w", algorithmGCRA: "g"}

// algorithmList are the algorithms in the order in which they are named.
var algorithmList = []string{algorithmLog, algorithmSet, algorithmWindow, algorithmGCRA}

// keyOf is the key of a subject by an algorithm.
func (o *limitOptions) keyOf(r *madcrow.Redis, algorithm, subject string) string {
	prefix := r.Config().KeyPrefix
	switch {
	case o.name == "":
		return prefix + limitRoute + subject
	case algorithm == algorithmLogin:
		return o.loginKey(r, subject)
	}
	return prefix + keys.Typed + "limit:" + o.name + ":" + limitCodes[algorithm] + ":{" + keys.Subject.Encode(subject) + "}"
}

// counted are the algorithms that have something of a subject: counts, or a block.
func (o *limitOptions) counted(ctx context.Context, r *madcrow.Redis, subject string) ([]string, error) {
	among := o.among
	if o.name == "" || o.algorithm != "" {
		among = []string{o.algorithm}
	}
	var found []string
	for _, a := range among {
		key := o.keyOf(r, a, subject)
		res, err := r.DoMulti(ctx, r.B().Exists().Key(key).Build(), r.B().Exists().Key(key+limitscript.BlockSuffix).Build())
		if err != nil {
			return nil, err
		}
		state, _, _ := res[0].Int()
		block, _, _ := res[1].Int()
		if state+block > 0 {
			found = append(found, a)
		}
	}
	return found, nil
}

// resolve finds the algorithm of the limit where none was given: the one that has
// counted this subject, or else any other. A limit that has counted nothing is not
// there, but for check, which begins to count.
func (o *limitOptions) resolve(ctx context.Context, c *cobra.Command, r *madcrow.Redis, subject string) error {
	if o.algorithm != "" {
		return nil
	}
	found, err := o.counted(ctx, r, subject)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		inv, err := find(ctx, r, inventory.Limits)
		if err != nil {
			return err
		}
		login := false
		for _, l := range inv.Limits {
			switch {
			case l.Name != o.name:
			case slices.Contains(o.among, l.Algorithm):
				found = append(found, l.Algorithm)
			default:
				login = true
			}
		}
		if len(found) == 0 && login {
			return o.isLogin(c)
		}
		if len(found) == 0 && c.Name() != "check" {
			absent := noSuch(ctx, r, inventory.Limits, "limit", o.name)
			if c.Name() == "block" {
				return notThere{absent.Error() + "; to block under a limit that has counted nothing yet give --algorithm"}
			}
			return absent
		}
	}
	switch len(found) {
	case 0:
		o.algorithm = algorithmLog
	case 1:
		o.algorithm = found[0]
	default:
		return usageError{fmt.Errorf("the limit %q counts by several algorithms: give --algorithm %s", o.name, strings.Join(found, " or --algorithm "))}
	}
	return nil
}

// limitFacts is what Redis holds of a subject. It does not know the limit itself.
type limitFacts struct {
	Key       string `json:"key"`
	Name      string `json:"name,omitempty"`
	Algorithm string `json:"algorithm"`
	// Counted are the requests of the window; null where Redis does not know them.
	Counted *int64 `json:"counted"`
	// Window is 0 where Redis does not know it.
	Window  float64 `json:"window_seconds"`
	Reset   float64 `json:"reset_after_seconds"`
	Blocked float64 `json:"blocked_for_seconds"`

	window  time.Duration
	buckets int
	paid    int64 // what a login counted before this time was paid for by a block
}

// facts reads what Redis holds of a subject.
func (o *limitOptions) facts(ctx context.Context, r *madcrow.Redis, subject string) (f limitFacts, err error) {
	f = limitFacts{Key: subject, Name: o.name, Algorithm: o.algorithm}
	key := o.keyOf(r, o.algorithm, subject)
	m, err := r.Do(ctx, r.B().Time().Build()).Message()
	if err != nil {
		return f, err
	}
	clock, err := m.AsIntSlice()
	if err != nil || len(clock) != 2 {
		return f, errors.Join(errors.New("the server's time cannot be read"), err)
	}
	now := clock[0]*1_000_000 + clock[1]
	b := r.B()
	state := b.Get().Key(key).Build
	switch o.algorithm {
	case algorithmLog:
		state = b.Lrange().Key(key).Start(0).Stop(-1).Build
	case algorithmSet, algorithmLogin:
		state = b.Zrange().Key(key).Min("0").Max("-1").Withscores().Build
	}
	all := []madcrow.Command{b.Pttl().Key(key).Build(), b.Pttl().Key(key + limitscript.BlockSuffix).Build(), state()}
	if o.algorithm == algorithmLogin {
		all = append(all, b.Get().Key(key+limitscript.BlockSuffix).Build())
	}
	res, err := r.DoMulti(ctx, all...)
	if err != nil {
		return f, err
	}
	life, _, _ := res[0].Int()
	block, _, _ := res[1].Int()
	f.Blocked = math.Max(float64(block), 0) / 1000
	if o.algorithm == algorithmLogin {
		text, _, _ := res[3].Text()
		f.readBlock(text, now)
	}
	if life = max(life-1, 0); life > 0 { // scripts add one millisecond
		msg, _ := res[2].Message()
		f.read(&msg, now, life*1000)
	} else if o.algorithm != algorithmGCRA {
		f.Counted = new(int64)
	}
	f.Window = f.window.Seconds()
	return f, nil
}

// empty says whether nothing is counted, and nothing blocked.
func (f *limitFacts) empty() bool { return f.Counted != nil && *f.Counted == 0 && f.Blocked == 0 }

// read reads the state of a subject. Times are microseconds, life that of the key.
func (f *limitFacts) read(m *madcrow.Message, now, life int64) {
	f.Reset = float64(life) / 1e6
	var stamps []int64
	switch f.Algorithm {
	case algorithmLog:
		stamps, _ = m.AsIntSlice()
	case algorithmSet, algorithmLogin:
		scores, _ := m.AsZScores()
		for _, z := range scores {
			if at := int64(math.Round(z.Score * 1e6)); at >= f.paid {
				stamps = append(stamps, at)
			}
		}
		if len(scores) > 0 && len(stamps) == 0 {
			f.Counted, f.Reset = new(int64), 0
		}
	case algorithmWindow:
		text, _ := m.ToString()
		f.readBuckets(text, now, life)
		return
	default:
		return
	}
	if len(stamps) == 0 {
		return
	}
	// The key lives until the newest is free.
	f.window = time.Duration(now-slices.Max(stamps)+life) * time.Microsecond
	unit := 10 * time.Millisecond
	if f.window > 10*time.Second {
		unit = time.Second
	}
	f.window = f.window.Round(unit)
	n := int64(0)
	for _, at := range stamps {
		if at > now-f.window.Microseconds() {
			n++
		}
	}
	f.Counted = &n
}

// readBuckets reads "width;index of the newest;counts", the newest first. The key
// lives until the newest bucket is free.
func (f *limitFacts) readBuckets(text string, now, life int64) {
	head, rest, _ := strings.Cut(text, ";")
	first, counts, _ := strings.Cut(rest, ";")
	width, err1 := strconv.ParseInt(head, 10, 64)
	newest, err2 := strconv.ParseInt(first, 10, 64)
	if err1 != nil || err2 != nil || width < 1 {
		return
	}
	buckets := (now+life+width/2)/width - newest - 1
	if buckets < 1 {
		return
	}
	f.buckets, f.window = int(buckets), (time.Duration(buckets*width) * time.Microsecond).Round(time.Millisecond)
	n := int64(0)
	for i, count := range strings.Split(counts, ",") {
		if v, err := strconv.ParseInt(count, 10, 64); err == nil && now/width-(newest-int64(i)) <= buckets {
			n += v
		}
	}
	f.Counted = &n
}

// uncounted says where else something is counted, for a subject of which nothing is;
// nil where there is nothing to say.
func (o *limitOptions) uncounted(ctx context.Context, r *madcrow.Redis, subject string) error {
	switch {
	case o.name == "":
		if hint := namedLimits(ctx, r); hint != "" {
			return notThere{fmt.Sprintf("nothing is counted for %q", subject) + hint}
		}
	case o.algorithm == algorithmLogin:
		return o.otherSubjects(ctx, r, subject)
	}
	return nil
}

// namedLimits says which limits --name may name, where there are any.
func namedLimits(ctx context.Context, r *madcrow.Redis) string {
	inv, err := find(ctx, r, inventory.Limits)
	if err != nil || len(inv.Limits) == 0 {
		return ""
	}
	return " by the HTTP route; give --name; " + present(inv, inventory.Limits)
}

func (f *limitFacts) text() string {
	if f.Counted == nil {
		return fmt.Sprintf("all free in %v (%s); give --limit, --window and --burst to see whether a request is allowed", short(time.Duration(f.Reset*1e9)), f.Algorithm)
	}
	if *f.Counted == 0 {
		return fmt.Sprintf("nothing is counted (%s)", f.Algorithm)
	}
	return fmt.Sprintf("%d counted in a window of %v (%s), all free in %v; give --limit to see whether a request is allowed",
		*f.Counted, f.window, f.Algorithm, short(time.Duration(f.Reset*1e9)))
}

// peekFacts prints what Redis holds, where the limit itself was not given.
func (o *limitOptions) peekFacts(c *cobra.Command, f limitFacts) error {
	if f.Blocked > 0 {
		if err := o.done(c, fmt.Sprintf("denied: blocked for %v more", short(time.Duration(f.Blocked*1e9))), f); err != nil {
			return err
		}
		return errDenied
	}
	return o.done(c, f.text(), f)
}
