package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/stream"
)

// streamOptions are the flags of all stream commands; each has those it needs.
type streamOptions struct {
	oneshot
	group, after string
	count, bytes int
	all          bool
	in           time.Duration
	at           string
	create       bool
	found        inventory.Stream
}

var streamExits = exits("3 there is no such stream, group or message")

func newStream() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Look at a stream of work, its delayed messages and dead letters",
		Long: `Look at a stream of a Go program (stream.Stream), at its delayed messages, and
at those that a group of its workers has put aside. Messages are shown as they
are stored, whatever their type is. 'madcrow ls streams' lists the streams.

Where a stream has one group only, --group can be left out.` + streamExits,
		Example: `  madcrow stream info mails
  madcrow stream add mails '{"to":"ann"}' --in 10m
  madcrow stream delayed mails
  madcrow stream dead mails
  madcrow stream replay mails 1764000000000-0
  madcrow stream purge mails --all`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newStreamInfo(), newStreamAdd(), newStreamDelayed(), newStreamCancel(), newStreamDead(), newStreamReplay(), newStreamPurge())
	return cmd
}

// textStream is what the commands work on. It is not typed: text is as it is
// stored.
type textStream = stream.Stream[string]

type streamWork func(ctx context.Context, c *cobra.Command, r *madcrow.Redis, s *textStream, ids []string) error

func (o *streamOptions) command(use, short, long, example string, work streamWork) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long + streamExits, Example: example,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c, args); err != nil {
				return err
			}
			return o.run(c, func(ctx context.Context, r *madcrow.Redis) error {
				// The bound is that of the program: it must not be less here,
				// or a replay would cut its stream.
				s, err := stream.New(r, args[0], stream.Options[string]{MaxLen: math.MaxInt, MaxDelayed: maxDelayed})
				if err != nil {
					return err
				}
				there := false
				if o.found, there, err = inventory.FindStream(ctx, r, args[0]); err != nil {
					return err
				}
				if !there && !o.create {
					return noSuch(ctx, r, inventory.Streams, "stream", args[0])
				}
				if err := o.chooseGroup(c); err != nil {
					return err
				}
				if err = work(ctx, c, r, s, args[1:]); errors.Is(err, stream.ErrNoGroup) {
					return o.noGroup()
				}
				return err
			})
		},
	}
	o.addFlags(cmd)
	return cmd
}

// maxDelayed is the highest bound of delayed messages; that of the program is not
// known here.
const maxDelayed = 10_000_000

func (o *streamOptions) addGroup(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&o.group, "group", "", "the group of workers, a `name` (default the only one)")
	return cmd
}

// chooseGroup takes the only group where a command needs one and none was named.
func (o *streamOptions) chooseGroup(c *cobra.Command) error {
	if o.group != "" || c.Flags().Lookup("group") == nil || c.Name() == "info" {
		return nil
	}
	switch len(o.found.Groups) {
	case 0:
		return notThere{fmt.Sprintf("the stream %q has no groups", o.found.Name)}
	case 1:
		o.group = o.found.Groups[0].Name
		return nil
	}
	return usageError{fmt.Errorf("the stream %q has several groups: give --group %s", o.found.Name, strings.Join(o.groups(), " or --group "))}
}

func (o *streamOptions) groups() (names []string) {
	for _, g := range o.found.Groups {
		names = append(names, oneLine(g.Name))
	}
	return names
}

// noGroup says that there is no such group, and which there are.
func (o *streamOptions) noGroup() error {
	text := fmt.Sprintf("the stream %q has no such group %q", o.found.Name, o.group)
	if len(o.found.Groups) == 0 {
		return notThere{text + ", and no other"}
	}
	return notThere{text + strings.TrimSuffix(didYouMean(o.group, o.groups()), "?") + "; groups that there are: " + strings.Join(o.groups(), ", ")}
}

var letterID = regexp.MustCompile(`^\d{1,19}-\d{1,19}$`)

// check refuses what cannot be meant, and reads the settings.
func (o *streamOptions) check(c *cobra.Command, args []string) error {
	takesIDs := c.Flags().Lookup("all") != nil
	one := map[string]bool{"add": true, "cancel": true}[c.Name()] // a message, or an id of a delayed one
	switch {
	case len(args) == 0 || len(args) > 1 && !takesIDs && !one || one && len(args) != 2:
		return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
	case c.Flags().Changed("group") && o.group == "":
		return usageError{errors.New("--group must not be empty")}
	case takesIDs && o.all == (len(args) > 1):
		return usageError{fmt.Errorf("stream %s needs the ids of dead letters, or --all", c.Name())}
	case c.Name() != "delayed" && o.after != "" && !letterID.MatchString(o.after):
		return usageError{errors.New("--after is no id of a dead letter: they are like 1764000000000-0")}
	case c.Flags().Lookup("count") != nil && (o.count < 1 || o.count > 1000):
		return usageError{errors.New("--count must be from 1 to 1000")}
	case o.bytes < 0:
		return usageError{errors.New("--bytes must not be negative")}
	}
	for _, id := range args[1:] {
		if takesIDs && !letterID.MatchString(id) {
			return usageError{fmt.Errorf("%q is no id of a dead letter: they are like 1764000000000-0", id)}
		}
	}
	return o.oneshot.check(c)
}

func newStreamInfo() *cobra.Command {
	o := &streamOptions{}
	return o.addGroup(o.command("info NAME", "Say how far the groups are behind",
		`Say how many messages the stream keeps, and for each group, or that of --group,
how many of them wait, are in the hands of its workers (pending), were put aside
(dead), and were removed before the group had done them (lost).`,
		`  madcrow stream info mails
  madcrow stream info mails --group senders -o json`, o.info))
}

func newStreamAdd() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("add NAME MESSAGE", "Publish a message, now or later",
		`Publish MESSAGE as it is, for all groups of the stream, and print its id. It
must be as the program's codec writes it: JSON, or text for streams of strings;
'-' reads it from standard input.

With --in or --at it waits beside the stream until then: a process with workers
of the stream publishes it, and 'madcrow stream cancel' takes it back.

A stream that does not exist is made with --create only.`,
		`  madcrow stream add mails '{"to":"ann"}'
  madcrow stream add mails - --in 10m < mail.json
  madcrow stream add mails hello --at 2030-01-02T08:00:00Z`, o.add)
	f := cmd.Flags()
	f.DurationVar(&o.in, "in", 0, "publish it after this `duration`")
	f.StringVar(&o.at, "at", "", "publish it at this `time`, as 2030-01-02T08:00:00Z")
	f.BoolVar(&o.create, "create", false, "make the stream if there is none")
	return known(cmd, "publish", "send", "push")
}

func newStreamDelayed() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("delayed NAME", "Show delayed messages",
		`Show the messages that wait for their time, the next first: the id for cancel,
when they are due, and the message.`,
		`  madcrow stream delayed mails
  madcrow stream delayed mails --count 100 -o json`, o.delayed)
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "n", 20, "show this `number` at most")
	f.IntVar(&o.bytes, "bytes", 256, "show this `number` of bytes of each message, 0 for all")
	return known(cmd, "scheduled", "later")
}

func newStreamCancel() *cobra.Command {
	o := &streamOptions{}
	return o.command("cancel NAME ID", "Take back a delayed message",
		`Take back the delayed message with this id: it is never published.`,
		`  madcrow stream cancel mails 1764000000000-00000000-ABCDEFGHIJKL`, o.cancel)
}

func newStreamDead() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("dead NAME", "Show dead letters",
		`Show the messages that were tried too often and put aside, the oldest first:
the id for replay and purge, how often they were tried, the last error and the
message.`,
		`  madcrow stream dead mails
  madcrow stream dead mails --count 100 --after 1764000000000-0
  madcrow stream dead mails --bytes 0 -o json`, o.dead)
	f := o.addGroup(cmd).Flags()
	f.IntVarP(&o.count, "count", "n", 20, "show this `number` at most")
	f.StringVar(&o.after, "after", "", "begin after the dead letter with this `id`")
	f.IntVar(&o.bytes, "bytes", 256, "show this `number` of bytes of each message, 0 for all")
	return cmd
}

func newStreamReplay() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("replay NAME {ID... | --all}", "Send dead letters again",
		`Send dead letters again, to all groups of the stream, as new messages. They are
no dead letters any more.`,
		`  madcrow stream replay mails 1764000000000-0
  madcrow stream replay mails --all`, o.replay)
	cmd.Flags().BoolVar(&o.all, "all", false, "all that there are now")
	return o.addGroup(known(cmd, "retry", "requeue"))
}

func newStreamPurge() *cobra.Command {
	o := &streamOptions{}
	cmd := o.command("purge NAME {ID... | --all}", "Remove dead letters",
		`Remove dead letters for good.`,
		`  madcrow stream purge mails 1764000000000-0
  madcrow stream purge mails --all`, o.purge)
	cmd.Flags().BoolVar(&o.all, "all", false, "all of them")
	return o.addGroup(known(cmd, "delete", "remove", "rm"))
}
