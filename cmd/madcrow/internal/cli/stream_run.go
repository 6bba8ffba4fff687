package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
)

// streamInfo is what info prints as JSON.
type streamInfo struct {
	Name   string `json:"name"`
	Group  string `json:"group"`
	Length int64  `json:"length"`
	// Waiting is null where Redis cannot tell.
	Waiting *int64 `json:"waiting"`
	Pending int64  `json:"pending"`
	Workers int64  `json:"workers"`
	Dead    int64  `json:"dead"`
	Lost    int64  `json:"lost"`
	Delayed int64  `json:"delayed"`
}

func (o *streamOptions) info(ctx context.Context, c *cobra.Command, _ *madcrow.Redis, s *textStream, _ []string) error {
	if o.group == "" {
		var text strings.Builder
		table(&text, "STREAM MESSAGES GROUP WAITING PENDING WORKERS DEAD LOST", groupRows(o.found))
		shown := strings.TrimRight(text.String(), "\n")
		if o.found.Delayed > 0 {
			shown += fmt.Sprintf("\n\ndelayed  %d", o.found.Delayed)
		}
		return o.done(c, shown, o.found)
	}
	lag, err := s.Lag(ctx, o.group)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(o.found.Groups, func(g inventory.Group) bool { return g.Name == o.group }) && lag.Dead == 0 {
		return o.noGroup()
	}
	answer := streamInfo{
		Name: c.Flags().Arg(0), Group: o.group, Length: lag.Length, Pending: lag.Pending, Workers: lag.Workers,
		Dead: lag.Dead, Lost: lag.Lost, Delayed: o.found.Delayed,
	}
	waiting := "unknown"
	if lag.Waiting >= 0 {
		answer.Waiting, waiting = &lag.Waiting, fmt.Sprint(lag.Waiting)
	}
	return o.done(c, fmt.Sprintf("length   %d\nwaiting  %s\npending  %d\nworkers  %d\ndead     %d\nlost     %d\ndelayed  %d",
		lag.Length, waiting, lag.Pending, lag.Workers, lag.Dead, lag.Lost, o.found.Delayed), answer)
}

// deadLetter is one that dead prints as JSON.
type deadLetter struct {
	ID         string `json:"id"`
	Original   string `json:"original"`
	Deliveries int64  `json:"deliveries"`
	Reason     string `json:"reason"`
	payload
	Bytes     int  `json:"message_bytes"`
	Truncated bool `json:"truncated"`
}

func (o *streamOptions) dead(ctx context.Context, c *cobra.Command, _ *madcrow.Redis, s *textStream, _ []string) error {
	letters, err := s.Dead(ctx, o.group, o.after, o.count+1)
	if err != nil {
		return err
	}
	more := len(letters) > o.count
	if more {
		letters = letters[:o.count]
	}
	out := json.NewEncoder(c.OutOrStdout())
	out.SetEscapeHTML(false)
	for _, d := range letters {
		text, cut := cutText(d.Raw, o.bytes)
		if o.output == "json" {
			err = out.Encode(deadLetter{d.ID, d.Original, d.Deliveries, d.Reason, payloadOf(text), len(d.Raw), cut})
		} else {
			shown := oneLine(text)
			if cut {
				shown += fmt.Sprintf("… (%d bytes)", len(d.Raw))
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s  was %s, deliveries: %d\n  reason   %s\n  message  %s\n",
				d.ID, oneLine(d.Original), d.Deliveries, oneLine(d.Reason), shown)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case more:
		_, err = fmt.Fprintf(c.ErrOrStderr(), "madcrow: there are more: --after %s\n", letters[len(letters)-1].ID)
	case len(letters) == 0 && o.output == "text":
		_, err = fmt.Fprintln(c.OutOrStdout(), "no dead letters")
	}
	return err
}

func (o *streamOptions) replay(ctx context.Context, c *cobra.Command, _ *madcrow.Redis, s *textStream, ids []string) error {
	if o.all {
		var err error
		if ids, err = o.allDead(ctx, s); err != nil {
			return err
		}
	}
	done, missing := 0, 0
	for _, id := range ids {
		ok, err := s.Replay(ctx, o.group, id)
		switch {
		case err != nil:
			_ = o.counted(c, "replayed", done) // it is done
			return err
		case ok:
			done++
		case !o.all: // somebody else may have been faster with all of them
			missing++
			_, _ = fmt.Fprintf(c.ErrOrStderr(), "madcrow: there is no dead letter %s\n", id)
		}
	}
	return o.finish(c, "replayed", done, missing)
}

// replayPage is how many dead letters are listed at once.
const replayPage = 100

// allDead lists those that there are now: what fails again meanwhile would be
// replayed for ever.
func (o *streamOptions) allDead(ctx context.Context, s *textStream) (ids []string, err error) {
	lag, err := s.Lag(ctx, o.group)
	for after := ""; err == nil && (after == "" || int64(len(ids)) < lag.Dead); {
		page, problem := s.Dead(ctx, o.group, after, int(min(replayPage, max(lag.Dead, 1)-int64(len(ids)))))
		for _, d := range page {
			ids, after = append(ids, d.ID), d.ID
		}
		if err = problem; len(page) == 0 {
			break
		}
	}
	return ids, err
}

func (o *streamOptions) purge(ctx context.Context, c *cobra.Command, _ *madcrow.Redis, s *textStream, ids []string) error {
	n, err := s.Purge(ctx, o.group, ids...) // no ids are all of them
	if err != nil {
		return err
	}
	return o.finish(c, "purged", int(n), max(len(ids)-int(n), 0))
}

func (o *streamOptions) finish(c *cobra.Command, verb string, done, missing int) error {
	if err := o.counted(c, verb, done); err != nil {
		return err
	}
	if missing > 0 {
		return errMiss
	}
	return nil
}

func (o *streamOptions) counted(c *cobra.Command, verb string, n int) error {
	return o.done(c, fmt.Sprintf("%s: %d", verb, n), map[string]any{"name": c.Flags().Arg(0), "group": o.group, verb: n})
}
