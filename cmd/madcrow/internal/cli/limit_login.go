package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// algorithmLogin stands for a ratelimit.Login in the place of an algorithm.
const algorithmLogin = inventory.Login

// algorithmsOf are the algorithms that a command knows: logins are looked at and
// reset, and no more.
func algorithmsOf(verb string) []string {
	if verb == "peek" || verb == "reset" {
		return append(slices.Clone(algorithmList), algorithmLogin)
	}
	return algorithmList
}

// loginKey is the key of the attempts of a login.
func (o *limitOptions) loginKey(r *madcrow.Redis, subject string) string {
	return r.Config().KeyPrefix + keys.Typed + "login:" + o.name + ":{" + cmp.Or(keys.Login.Encode(subject), keys.Hashed) + "}"
}

// isLogin is what a command that knows no logins says of one.
func (o *limitOptions) isLogin(c *cobra.Command) error {
	return usageError{fmt.Errorf("%q is a login: there are limit peek and limit reset for it; for limit %s of another limit with its name give --algorithm", o.name, c.Name())}
}

// login is the login that --name names.
func (o *limitOptions) login(r *madcrow.Redis) (*ratelimit.Login, error) {
	return ratelimit.NewLogin(r, o.name, ratelimit.LoginOptions{
		MaxAttempts: int(min(max(o.limit, 1), 1<<30)), Window: time.Duration(o.window), FailPolicy: madcrow.FailClosed, DeniedSubjects: -1,
		Blocks: []time.Duration{time.Minute}, // without any it would not look at blocks
	})
}

// peekLogin decides about an attempt, by --limit and --window.
func (o *limitOptions) peekLogin(ctx context.Context, c *cobra.Command, r *madcrow.Redis, subject string) error {
	if o.limit < 1 {
		return usageError{fmt.Errorf("--limit must be from 1, not %d", o.limit)}
	}
	l, err := o.login(r)
	if err != nil {
		return err
	}
	f, err := o.facts(ctx, r, subject)
	if err == nil && f.empty() {
		err = o.uncounted(ctx, r, subject)
	}
	if err != nil {
		return err
	}
	left, err := l.RemainingAttempts(ctx, subject)
	if err != nil {
		return err
	}
	next, err := l.TimeUntilReset(ctx, subject)
	d := ratelimit.Decision{
		Allowed: left > 0, Limit: o.limit, Window: time.Duration(o.window), Remaining: int64(left),
		ResetAfter: max(inSeconds(f.Reset), inSeconds(f.Blocked)),
	}
	if !d.Allowed {
		d.RetryAfter = next
	}
	return o.decided(c, subject, d, err)
}

func inSeconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// otherSubjects names the subjects of a login that contain one of which nothing is
// counted: a login by ratelimit.LoginKey counts an address and a user together. It is
// nil where there are none.
func (o *limitOptions) otherSubjects(ctx context.Context, r *madcrow.Redis, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, namesWithin)
	defer cancel()
	found, complete, err := inventory.LoginSubjects(ctx, r, o.name, subject)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("the login %q has nothing counted for %q, and no block", o.name, subject)
	switch {
	case len(found) == 0 && complete:
		return nil
	case len(found) == 0:
		return notThere{text + "; subjects that contain it were not found, as far as was looked"}
	case !complete:
		text += "; as far as was looked"
	}
	const most = 20
	if len(found) > most {
		found = append(found[:most:most], "…")
	}
	return notThere{text + "; give one of the subjects that contain it: " + oneLine(strings.Join(found, ", "))}
}

// readBlock reads "until:length:how many so far", the block of a login. What led to a
// block that is over is paid for. Times are microseconds.
func (f *limitFacts) readBlock(text string, now int64) {
	f.Blocked = 0 // the key outlives the block
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return
	}
	till, err1 := strconv.ParseInt(fields[0], 10, 64)
	length, err2 := strconv.ParseInt(fields[1], 10, 64)
	if err1 != nil || err2 != nil {
		return
	}
	if left := min(till-now, length); left > 0 {
		f.Blocked = float64(left) / 1e6
	} else {
		f.paid = till
	}
}
