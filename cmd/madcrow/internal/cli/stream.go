package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/stream"
)

// streamOptions are the flags of all stream commands; each has those it needs.
type streamOptions struct {
	oneshot
	group, after string
	count, bytes int
	all          bool
}

const streamExits = `

Exit codes: 0 done; 3 there is no such dead letter; 1 failed; 2 wrong command
line or settings.`

func newStream() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Look at a stream of work and its dead letters",
		Long: `Look at a stream of a Go program (stream.Stream), and at the messages that a
group of its workers has put aside. Messages are shown as they are stored,
whatever their type is.` + streamExits,
		Example: `  madcrow stream info mails --group senders
  madcrow stream dead mails --group senders
  madcrow stream replay mails --group senders 1764000000000-0
  madcrow stream purge mails --group senders --all`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newStreamInfo(), newStreamDead(), newStreamReplay(), newStreamPurge())
	return cmd
}

// textStream is what the commands work on. It is not typed: text is as it is
// stored.
type textStream = stream.Stream[string]

type streamWork func(ctx context.Context, c *cobra.Command, s *textStream, ids []string) error

func (o *streamOptions) command(use, short, long, example string, work streamWork) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long + streamExits, Example: example,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c, args); err != nil {
				return err
			}
			return o.run(c, func(ctx context.Context, r *madcrow.Redis) error {
				// The bound is that of the program: it must not be less here,
				// or a replay would cut its stream.
				s, err := stream.New(r, args[0], stream.Options[string]{MaxLen: math.MaxInt})
				if err != nil {
					return err
				}
				return work(ctx, c, s, args[1:])
			})
		},
	}
	cmd.Flags().StringVar(&o.group, "group", "", "the group of workers, a `name` (required)")
	o.addFlags(cmd)
	return cmd
}

var letterID = regexp.MustCompile(`^\d{1,19}-\d{1,19}$`)

// check refuses what cannot be meant, and reads the settings.
func (o *streamOptions) check(c *cobra.Command, args []string) error {
	takesIDs := c.Flags().Lookup("all") != nil
	switch {
	case len(args) == 0 || len(args) > 1 && !takesIDs:
		return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
	case o.group == "":
		return usageError{fmt.Errorf("stream %s needs --group", c.Name())}
	case takesIDs && o.all == (len(args) > 1):
		return usageError{fmt.Errorf("stream %s needs the ids of dead letters, or --all", c.Name())}
	case o.after != "" && !letterID.MatchString(o.after):
		return usageError{errors.New("--after is no id of a dead letter: they are like 1764000000000-0")}
	case c.Flags().Lookup("count") != nil && (o.count < 1 || o.count > 1000):
		return usageError{errors.New("--count must be from 1 to 1000")}
	case o.bytes < 0:
		return usageError{errors.New("--bytes must not be negative")}
	}
	for _, id := range args[1:] {
		if !letterID.MatchString(id) {
			return usageError{fmt.Errorf("%q is no id of a dead letter: they are like 1764000000000-0", id)}
		}
	}
	return o.oneshot.check(c)
}

func newStreamInfo() *cobra.Command {
	o := &streamOptions{}
	return o.command("info NAME --group NAME", "Say how far a group is behind",
		`Say how many messages the stream keeps, and how many of them this group has
waiting, in the hands of its workers (pending) and put aside (dead). A group
that does not exist has everything waiting.`,
		`  madcrow stream info mails --group senders
  madcrow stream info mails --group senders -o json`, o.info)
}

func newStreamDead() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("dead NAME --group NAME", "Show dead letters",
		`Show the messages that were tried too often and put aside, the oldest first:
the id for replay and purge, how often they were tried, the last error and the
message.`,
		`  madcrow stream dead mails --group senders
  madcrow stream dead mails --group senders --count 100 --after 1764000000000-0
  madcrow stream dead mails --group senders --bytes 0 -o json`, o.dead)
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "n", 20, "show this `number` at most")
	f.StringVar(&o.after, "after", "", "begin after the dead letter with this `id`")
	f.IntVar(&o.bytes, "bytes", 256, "show this `number` of bytes of each message, 0 for all")
	return cmd
}

func newStreamReplay() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("replay NAME [ID...] --group NAME", "Send dead letters again",
		`Send dead letters again, to all groups of the stream, as new messages. They are
no dead letters any more.`,
		`  madcrow stream replay mails --group senders 1764000000000-0
  madcrow stream replay mails --group senders --all`, o.replay)
	cmd.Flags().BoolVar(&o.all, "all", false, "all that there are now")
	return cmd
}

func newStreamPurge() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("purge NAME [ID...] --group NAME", "Remove dead letters",
		`Remove dead letters for good.`,
		`  madcrow stream purge mails --group senders 1764000000000-0
  madcrow stream purge mails --group senders --all`, o.purge)
	cmd.Flags().BoolVar(&o.all, "all", false, "all of them")
	return cmd
}
