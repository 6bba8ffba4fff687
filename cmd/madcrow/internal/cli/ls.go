package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
)

func newList() *cobra.Command {
	o := &oneshot{}
	cmd := &cobra.Command{
		Use:   "ls [" + kindNames("|") + "]",
		Short: "List what is there: caches, limits, sessions, streams, topics",
		Long: `List what Madcrow keeps in Redis under REDIS_KEY_PREFIX: the names of caches,
limits, semaphores and sessions, streams with their groups, and topics with a
history. One kind can be named.

It looks at all keys by SCAN, on every node of a cluster, without holding up
Redis, until --timeout; standard error says how far it is, and when it was cut
off. A name whose keys have all expired is not found: a limit that counts
nothing at the moment, a cache without entries.

Logins are among the limits, with the algorithm "login". Their BLOCKED are also
those whose block is over, as long as the login remembers it.

A name "~…" is the hash of a name with unusual signs.` + exits("0 something was found", "3 nothing was found"),
		Example: `  madcrow ls
  madcrow ls streams
  madcrow ls sessions -o json
  madcrow ls --timeout 5m`,
		SuggestFor: []string{"list", "find", "scan", "keys", "show"},
		ValidArgs:  kinds(),
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
			case len(args) == 1 && !slices.Contains(kinds(), args[0]):
				return usageError{fmt.Errorf("there are no %q: give %s%s", args[0], kindNames(", "), didYouMean(args[0], kinds()))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			kind := inventory.Kind("")
			if len(args) == 1 {
				kind = inventory.Kind(args[0])
			}
			return o.run(c, func(ctx context.Context, r *madcrow.Redis) error { return o.list(ctx, c, r, kind) })
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags().Lookup("timeout")
	f.Usage, f.DefValue = "look at the keys for this time at most", "30s"
	_ = f.Value.Set("30s")
	return cmd
}

func kinds() (names []string) {
	for _, k := range inventory.Kinds {
		names = append(names, string(k))
	}
	return names
}

func kindNames(between string) string { return strings.Join(kinds(), between) }

func (o *oneshot) list(ctx context.Context, c *cobra.Command, r *madcrow.Redis, kind inventory.Kind) error {
	// The last second is for the answer.
	looking, cancel := context.WithTimeout(ctx, max(o.timeout-time.Second, o.timeout/2))
	defer cancel()
	inv, err := inventory.Find(looking, r, inventory.Options{Kind: kind, Progress: progressOn(c.ErrOrStderr())})
	if err != nil {
		return err
	}
	var text strings.Builder
	writeInventory(&text, inv, kind)
	if err := o.done(c, strings.TrimRight(text.String(), "\n"), inv); err != nil {
		return err
	}
	if !inv.Complete {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "madcrow: there may be more: %s\n", inv.Why)
	}
	if len(inv.Names(kind)) > 0 || kind == "" && !inv.Empty() {
		return nil
	}
	return notThere{emptyText(looking, r, inv, kind)}
}

// progressOn says on w how far a long search is.
func progressOn(w io.Writer) func(passed, all int64) {
	next := time.Now().Add(2 * time.Second)
	return func(passed, all int64) {
		if now := time.Now(); now.After(next) {
			next = now.Add(2 * time.Second)
			_, _ = fmt.Fprintf(w, "madcrow: looked at about %d of %d keys\n", passed, all)
		}
	}
}

// emptyText says that nothing was found, and where there is something.
func emptyText(ctx context.Context, r *madcrow.Redis, inv *inventory.Inventory, kind inventory.Kind) string {
	what := "nothing of Madcrow's"
	if kind != "" {
		what = "no " + string(kind)
	}
	text := fmt.Sprintf("%s under the prefix %q; the database has %s", what, inv.Prefix, number(inv.Keys, "key"))
	if inv.Prefix == "" {
		text = fmt.Sprintf("%s; the database has %s, and REDIS_KEY_PREFIX is not set", what, number(inv.Keys, "key"))
	}
	if kind == "" {
		if hints := inventory.Elsewhere(ctx, r); len(hints) > 0 {
			text += "; there is something under " + strings.Join(hints, ", ")
		}
	}
	return text
}

// number is "1 key" or "2 keys".
func number(n int64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// table writes rows under a heading, where there are any.
func table(w io.Writer, heading string, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				_, _ = fmt.Fprint(tw, "\t")
			}
			if text, ok := cell.(string); ok {
				cell = oneLine(text)
			}
			_, _ = fmt.Fprint(tw, cell)
		}
		_, _ = fmt.Fprintln(tw)
	}
	_ = tw.Flush() // into memory
	_, _ = fmt.Fprintln(w)
}

func writeInventory(w io.Writer, inv *inventory.Inventory, kind inventory.Kind) {
	table(w, "CACHE KIND ENTRIES LOADING", rowsOf(inv.Caches, func(c inventory.Cache) []any {
		kind := "objects"
		if c.HTTP {
			kind = "http"
		}
		return []any{c.Name, kind, c.Entries, c.Loading}
	}))
	table(w, "LIMIT ALGORITHM SUBJECTS BLOCKED", rowsOf(inv.Limits, func(l inventory.Limit) []any {
		return []any{l.Name, l.Algorithm, l.Subjects, l.Blocked}
	}))
	table(w, "SEMAPHORE SUBJECTS BLOCKED", rowsOf(inv.Semaphores, func(s inventory.Semaphore) []any {
		return []any{s.Name, s.Subjects, s.Blocked}
	}))
	table(w, "SESSIONS LIVE USERS", rowsOf(inv.Sessions, func(s inventory.Session) []any {
		return []any{s.Name, s.Sessions, s.Users}
	}))
	var groups [][]any
	for _, s := range inv.Streams {
		groups = append(groups, groupRows(s)...)
	}
	table(w, "STREAM MESSAGES GROUP WAITING PENDING WORKERS DEAD LOST", groups)
	table(w, "TOPIC HISTORY KEPT", rowsOf(inv.Topics, func(t inventory.Topic) []any {
		return []any{t.Name, t.History, short(time.Duration(t.KeptFor * float64(time.Second)))}
	}))
	if kind != "" {
		return
	}
	var other [][]any
	for _, line := range []struct {
		n    int64
		text string
	}{
		{inv.Other.Tags, "tags of caches"},
		{inv.Other.Once, "marks of stream.Once"},
		{inv.Other.Logins, "counted logins of the FastAPI layout"},
		{inv.Other.BlockedLogins, "blocked logins of the FastAPI layout"},
		{inv.Other.FastAPISessions, "sessions of the FastAPI layout"},
		{inv.Other.HTTPLimits, "limits of the HTTP route"},
		{inv.Other.Plain, "other keys: plain strings of 'madcrow cache', and of other programs"},
	} {
		if line.n > 0 {
			other = append(other, []any{line.text, line.n})
		}
	}
	table(w, "OTHER KEYS", other)
}

// groupRows are the rows of a stream: one for each group.
func groupRows(s inventory.Stream) [][]any {
	if len(s.Groups) == 0 {
		return [][]any{{s.Name, s.Length, "-", "-", "-", "-", "-", "-"}}
	}
	return rowsOf(s.Groups, func(g inventory.Group) []any {
		return []any{s.Name, s.Length, g.Name, orUnknown(g.Waiting), g.Pending, g.Workers, g.Dead, g.Lost}
	})
}

func orUnknown(n *int64) any {
	if n == nil {
		return "unknown"
	}
	return *n
}

func rowsOf[T any](list []T, row func(T) []any) [][]any {
	out := make([][]any, len(list))
	for i, x := range list {
		out[i] = row(x)
	}
	return out
}
