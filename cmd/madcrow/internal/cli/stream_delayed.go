package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
)

func (o *streamOptions) add(ctx context.Context, c *cobra.Command, _ *madcrow.Redis, s *textStream, args []string) (err error) {
	message := args[0]
	if message == "-" {
		text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxStdin))
		if err != nil {
			return err
		}
		message = string(text)
	}
	var id string
	answer := map[string]any{"name": c.Flags().Arg(0), "delayed": true}
	switch f := c.Flags(); {
	case f.Changed("in") && f.Changed("at"):
		return usageError{errors.New("give --in or --at, not both")}
	case f.Changed("in"):
		if o.in < 0 {
			return usageError{errors.New("--in must not be negative")}
		}
		id, err = s.PublishIn(ctx, o.in, message)
	case f.Changed("at"):
		due, bad := time.Parse(time.RFC3339, o.at)
		if bad != nil {
			return usageError{fmt.Errorf("--at: %q is no time like 2030-01-02T08:00:00Z", o.at)}
		}
		id, err = s.PublishAt(ctx, due, message)
	default:
		answer["delayed"] = false
		id, err = s.Publish(ctx, message)
	}
	if err != nil {
		return err
	}
	answer["id"] = id
	return o.done(c, id, answer)
}

// Parts of a member of the sorted set of delayed messages, see lua/delay.lua of
// package stream.
const (
	delayedSeq   = 8
	delayedNonce = 12
	delayedHead  = delayedSeq + 1 + delayedNonce + 1
)

// delayedMessage is one that delayed prints as JSON.
type delayedMessage struct {
	ID  string    `json:"id"`
	Due time.Time `json:"due"`
	payload
	Bytes     int  `json:"message_bytes"`
	Truncated bool `json:"truncated"`
}

func (o *streamOptions) delayed(ctx context.Context, c *cobra.Command, r *madcrow.Redis, _ *textStream, _ []string) error {
	m, err := r.Do(ctx, r.B().Zrange().Key(inventory.StreamKey(r, o.found.Name, "delayed")).Min("0").Max(fmt.Sprint(o.count-1)).Withscores().Build()).Message()
	if err != nil {
		return err
	}
	all, err := m.AsZScores()
	if err != nil {
		return err
	}
	out := json.NewEncoder(c.OutOrStdout())
	out.SetEscapeHTML(false)
	for _, z := range all {
		if len(z.Member) < delayedHead {
			continue // not a message
		}
		raw := z.Member[delayedHead:]
		text, cut := cutText(raw, o.bytes)
		d := delayedMessage{fmt.Sprintf("%.0f-%s", z.Score, z.Member[:delayedHead-1]), time.UnixMilli(int64(z.Score)).UTC(), payloadOf(text), len(raw), cut}
		if o.output == "json" {
			err = out.Encode(d)
		} else {
			shown := oneLine(text)
			if cut {
				shown += fmt.Sprintf("… (%d bytes)", d.Bytes)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s  due %s\n  message  %s\n", d.ID, stamp(d.Due), shown)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case o.found.Delayed > int64(len(all)):
		_, err = fmt.Fprintf(c.ErrOrStderr(), "madcrow: there are %d more: --count\n", o.found.Delayed-int64(len(all)))
	case len(all) == 0 && o.output == "text":
		_, err = fmt.Fprintln(c.OutOrStdout(), "no delayed messages")
	}
	return err
}

func (o *streamOptions) cancel(ctx context.Context, c *cobra.Command, _ *madcrow.Redis, s *textStream, ids []string) error {
	there, err := s.Cancel(ctx, ids[0])
	if err != nil {
		return err
	}
	if !there {
		return notThere{fmt.Sprintf("the stream %q has no delayed message %s", o.found.Name, oneLine(ids[0]))}
	}
	return o.done(c, "canceled", map[string]any{"name": o.found.Name, "id": ids[0], "canceled": true})
}
