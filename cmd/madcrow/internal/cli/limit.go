package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/envvalue"
)

// limitRoute is what the HTTP route puts before a key.
const limitRoute = "rate_limit:"

// Names of the algorithms.
const (
	algorithmSet    = "sorted-set-log"
	algorithmLog    = "sliding-log"
	algorithmWindow = "sliding-window"
	algorithmGCRA   = "gcra"

	algorithmNames = algorithmLog + ", " + algorithmSet + ", " + algorithmWindow + " or " + algorithmGCRA
)

// limitOptions are the flags of all four commands; each has those it needs.
type limitOptions struct {
	limit, burst, cost int64
	window, blockFor   span
	algorithm, name    string
	among              []string // the algorithms that the command knows
	buckets            int
	oneshot
}

var limitExits = exits("0 allowed, or done", "3 denied, or nothing is there")

// span is a flag: a Go duration, or seconds.
type span time.Duration

func (s *span) String() string {
	if *s == 0 {
		return "" // help then shows no default
	}
	return time.Duration(*s).String()
}

func (s *span) Type() string { return "duration" }

func (s *span) Set(text string) error {
	d, err := envvalue.Duration(text, time.Microsecond, 100*366*24*time.Hour)
	if err != nil {
		return fmt.Errorf("%w: give a duration (1m30s) or seconds (90)", err)
	}
	*s = span(d)
	return nil
}

func newLimit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limit",
		Short: "Ask, look at, reset or block a rate limit in Redis",
		Long: `Work on one rate limit in the Redis that the environment names, as the programs
that share it do.

KEY is that of the HTTP route /rate-limit/check, a sorted-set log. With --name
it is the subject of the limit of that name in a Go program; 'madcrow ls limits'
lists the names. The algorithm is found by what is counted. Redis does not know
the limit itself: check needs the numbers of the program, peek shows without
them what is counted.

With the name of a login (ratelimit.NewLogin) peek and reset look at one that is
locked out, and unlock it. The subject is the identifier of the program; that of
ratelimit.LoginKey is ADDRESS|USER. Where nothing is counted for KEY they name
the subjects that contain it.` + limitExits,
		Example: `  madcrow limit check user:1 --limit 10 --window 60
  madcrow limit peek 192.0.2.1 --name api
  madcrow limit peek user:1 --limit 10 --window 1m -o json
  madcrow limit reset user:1
  madcrow limit check 192.0.2.1 --name api --algorithm gcra --limit 100 --burst 20 --window 1m
  madcrow limit block 192.0.2.1 --name api --for 24h
  madcrow limit peek bob --name login
  madcrow limit reset '192.0.2.1|bob' --name login`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(
		limitCommand("check", "Count a request, and say whether it is allowed", `Count a request, and say whether it is allowed. A denied one is not counted.`, checkLimit),
		limitCommand("peek", "Say what check would say, and count nothing", `Say what is counted, and with --limit what check would say. Nothing is counted.
The window is found by what is counted, but for gcra.`, peekLimit),
		limitCommand("reset", "Forget what was counted, and a block", `Forget what was counted, and a block. Go programs that remember a denial see it
within a second.`, resetLimit),
		limitCommand("block", "Deny everything for a time", `Deny everything for a time, whatever is free; 'madcrow limit reset' ends it.
It needs --name: the limits of the HTTP route have no blocks.`, blockLimit),
	)
	return cmd
}

// limitWork is one of the commands. It prints its answer itself.
type limitWork func(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o limitOptions, key string) error

func limitCommand(verb, short, long string, work limitWork) *cobra.Command {
	var o limitOptions
	cmd := &cobra.Command{
		Use: verb + " KEY", Short: short,
		Long: long + limitExits,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("limit %s needs one KEY, not %d", verb, len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			return o.run(c, func(ctx context.Context, r *madcrow.Redis) error {
				if err := o.resolve(ctx, c, r, args[0]); err != nil {
					return err
				}
				return work(ctx, c, r, o, args[0])
			})
		},
	}
	f := cmd.Flags()
	if verb == "check" || verb == "peek" {
		required := " (required)"
		if verb == "peek" {
			required = ""
		}
		f.Int64Var(&o.limit, "limit", 0, "allow this `number` in each window"+required)
		f.Var(&o.window, "window", "the window, a `duration` (1m30s) or seconds"+required)
		f.IntVar(&o.buckets, "buckets", 10, "`number` of buckets of "+algorithmWindow)
		f.Int64Var(&o.burst, "burst", 0, "burst of "+algorithmGCRA+", a `number` (default --limit)")
	}
	if verb == "check" {
		f.Int64Var(&o.cost, "cost", 1, "what the request costs, a `number`; needs --name")
	}
	if verb == "block" {
		f.Var(&o.blockFor, "for", "how long, a `duration` (1m30s) or seconds (required)")
	}
	f.StringVar(&o.name, "name", "", "the limit of this `name` in a Go program")
	names := algorithmNames
	if len(algorithmsOf(verb)) > len(algorithmList) {
		names += "; " + algorithmLogin + " for a login"
	}
	f.StringVar(&o.algorithm, "algorithm", "", "its `algorithm`: "+names+" (default the one that has counted)")
	o.addFlags(cmd)
	return cmd
}

// check refuses what cannot be meant, and fills in defaults.
func (o *limitOptions) check(c *cobra.Command) error {
	if err := o.oneshot.check(c); err != nil {
		return err
	}
	for _, name := range []string{"limit", "window", "for"} {
		if f := c.Flags().Lookup(name); f != nil && !f.Changed && (c.Name() != "peek" || name == "limit" && o.window > 0) {
			return usageError{fmt.Errorf("limit %s needs --%s", c.Name(), name)}
		}
	}
	o.among = algorithmsOf(c.Name())
	if o.name != "" {
		if o.algorithm != "" && !slices.Contains(o.among, o.algorithm) {
			return usageError{fmt.Errorf("--algorithm: %q is not %s%s", o.algorithm, algorithmNames, didYouMean(o.algorithm, o.among))}
		}
		return nil
	}
	if o.algorithm == "" {
		o.algorithm = algorithmSet
	}
	switch {
	case c.Flags().Changed("name"):
		return usageError{errors.New("--name must not be empty")}
	case o.algorithm != algorithmSet:
		return usageError{fmt.Errorf("--algorithm %s needs --name: the limits of the HTTP route are a %s", o.algorithm, algorithmSet)}
	case o.cost > 1:
		return usageError{errors.New("--cost needs --name: the requests of the HTTP route cost 1")}
	case o.blockFor > 0:
		return usageError{errors.New("block needs --name: the limits of the HTTP route have no blocks")}
	}
	return nil
}
