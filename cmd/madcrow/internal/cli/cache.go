package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
)

// cacheOptions are the flags of all cache commands; each has those it needs.
type cacheOptions struct {
	name          string
	codec         string
	tags          []string
	ttl, staleFor span
	verb          string // of cache tag
	oneshot
}

var cacheExits = exits("0 found, or done", "3 there is no such key, tag or cache")

func newCache() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Read, store and remove what is cached in Redis",
		Long: `Work on what is cached in the Redis that the environment names, as the programs
that share it do.

KEY is that of the HTTP route /cache/{key} and of service.GetCache: a plain
string of Redis, under REDIS_KEY_PREFIX. With --name it is a key of the typed
cache of that name in a Go program (package cache): an entry with a lifetime of
its own, tags and a codec.

Redis notifies programs that keep near copies of every change.` + cacheExits,
		Example: `  madcrow cache get greeting
  madcrow cache set greeting hello --ttl 5m
  madcrow cache get 42 --name users -o json
  madcrow cache set 42 '{"id":42,"name":"Zoë"}' --name users --ttl 1h --tag user:42
  madcrow cache tag delete user:42
  madcrow cache clear --name users`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newCacheGet(), newCacheSet(), newCacheDel(), newCacheTTL(), newCacheTag(), newCacheClear())
	return cmd
}

// cacheWork is one of the commands. It prints its answer itself.
type cacheWork func(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error

// cacheCommand makes a command of arguments named in use; raw works on the
// plain string, typed on an entry of --name.
func cacheCommand(o *cacheOptions, use, short, long, example string, count func(n int) bool, raw, typed cacheWork) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long + cacheExits, Example: example,
		Args: func(c *cobra.Command, args []string) error {
			if !count(len(args)) {
				return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			if c.Flags().Changed("name") && o.name == "" {
				return usageError{errors.New("--name must not be empty")}
			}
			work := raw
			if o.name != "" {
				work = typed
			}
			return o.run(c, func(ctx context.Context, r *madcrow.Redis) error { return work(ctx, c, r, o, args) })
		},
	}
	o.addFlags(cmd)
	return cmd
}

// known has a command suggested for other names too.
func known(cmd *cobra.Command, others ...string) *cobra.Command {
	cmd.SuggestFor = others
	return cmd
}

func exactly(n int) func(int) bool { return func(have int) bool { return have == n } }

func atLeast(n int) func(int) bool { return func(have int) bool { return have >= n } }

func (o *cacheOptions) addName(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&o.name, "name", "", "the typed cache of this `name` in a Go program")
	return cmd
}

func newCacheGet() *cobra.Command {
	o := &cacheOptions{}
	return o.addName(cacheCommand(o, "get KEY", "Print a value",
		`Print the value of KEY, and nothing else.

With --name print what stands in the entry too: whether it is fresh, its age,
tags and codec, and that the absence of a value is cached (exit code 3). The
value is shown where its codec is one of the library's.`,
		`  madcrow cache get greeting
  madcrow cache get 42 --name users
  madcrow cache get 42 --name users -o json`,
		exactly(1), getRaw, getTyped))
}

func newCacheSet() *cobra.Command {
	o := &cacheOptions{}
	cmd := o.addName(cacheCommand(o, "set KEY VALUE", "Store a value",
		`Store VALUE under KEY; '-' reads it from standard input, as it is. Without
--ttl it stays until it is removed.

With --name an entry is written, as Set of package cache does, with the codec
that --codec names. It must be that of the program, which else finds nothing and
loads: json for caches of structs, numbers and the like, text for caches of
strings, bytes for caches of bytes. Other codecs, and compressed values, cannot
be written here. JSON must be valid; whether it fits the program's type only
the program knows. Tags that the program gives to all entries (Options.Tags)
must be given with --tag, or it takes the entry for none. What the program is
loading at this moment is not stored over it.`,
		`  madcrow cache set greeting hello --ttl 5m
  madcrow cache set page - < page.html
  madcrow cache set 42 '{"id":42}' --name users --ttl 1h --stale-for 24h --tag user:42`,
		exactly(2), setRaw, setTyped))
	f := cmd.Flags()
	f.Var(&o.ttl, "ttl", "its lifetime, a `duration` (1m30s) or seconds (default none, with --name 5m)")
	f.Var(&o.staleFor, "stale-for", "keep it for this `duration` more, for when loading fails; needs --name")
	f.StringVar(&o.codec, "codec", codecJSON, "`json, text or bytes`; needs --name")
	f.StringArrayVar(&o.tags, "tag", nil, "`tag` of the entry, may be repeated; needs --name")
	run := cmd.RunE
	cmd.RunE = func(c *cobra.Command, args []string) error {
		for _, flag := range []string{"stale-for", "codec", "tag"} {
			if o.name == "" && c.Flags().Changed(flag) {
				return usageError{fmt.Errorf("--%s needs --name: plain strings have none", flag)}
			}
		}
		if !slices.Contains([]string{codecJSON, codecText, codecBytes}, o.codec) {
			return usageError{fmt.Errorf("--codec: %q is not json, text or bytes", o.codec)}
		}
		if len(args) == 2 && args[1] == "-" {
			text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxStdin))
			if err != nil {
				return err
			}
			args = []string{args[0], string(text)}
		}
		return run(c, args)
	}
	return cmd
}

func newCacheDel() *cobra.Command {
	o := &cacheOptions{}
	return o.addName(known(cacheCommand(o, "del KEY", "Remove a value",
		`Remove the value of KEY. With --name what a program is loading at this moment
is not stored either.`,
		`  madcrow cache del greeting
  madcrow cache del 42 --name users`,
		exactly(1), delRaw, delTyped), "remove", "rm", "unset"))
}

func newCacheTTL() *cobra.Command {
	o := &cacheOptions{}
	return o.addName(cacheCommand(o, "ttl KEY", "Print how long a value still lives",
		`Print how long KEY still lives. With --name it is how long the entry is fresh,
and of a stale one how long it is kept.`,
		`  madcrow cache ttl greeting
  madcrow cache ttl 42 --name users -o json`,
		exactly(1), ttlRaw, ttlTyped))
}

func newCacheTag() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Remove or expire all entries of a tag",
		Long: `Remove or expire all entries of a tag, at once, whatever their number and in
whatever typed cache of the Go programs that share the REDIS_KEY_PREFIX.` + cacheExits,
		Example: `  madcrow cache tag delete user:42
  madcrow cache tag expire prices stock`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	del := &cacheOptions{verb: "delete"}
	expire := &cacheOptions{verb: "expire"}
	cmd.AddCommand(
		known(cacheCommand(del, "delete TAG…", "Remove all entries of the tags",
			`Remove all entries of the tags: none of them is served again, not even as a
stale one.`, `  madcrow cache tag delete user:42`, atLeast(1), changeTags, nil), "remove", "rm"),
		cacheCommand(expire, "expire TAG…", "Make all entries of the tags stale",
			`Make all entries of the tags stale: they are loaded again, and served stale
where a program allows it.`, `  madcrow cache tag expire prices stock`, atLeast(1), changeTags, nil),
	)
	return cmd
}

func newCacheClear() *cobra.Command {
	o := &cacheOptions{}
	needsName := func(context.Context, *cobra.Command, *madcrow.Redis, *cacheOptions, []string) error {
		return usageError{errors.New("cache clear needs --name: there is no clearing of all plain strings")}
	}
	return o.addName(cacheCommand(o, "clear", "Remove all entries of a typed cache",
		`Remove all entries of the typed cache that --name names, at once, whatever their
number.`, `  madcrow cache clear --name users`, exactly(0), needsName, clearTyped))
}

// maxStdin is a byte more than any REDIS_MAX_VALUE_SIZE lets pass.
const maxStdin = 1<<30 + 1
