package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
)

// completeWithin bounds what a press of the tab key waits for Redis.
const completeWithin = 300 * time.Millisecond

// values completes one of several values.
func values(of ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return of, cobra.ShellCompDirectiveNoFileComp
	}
}

// fromRedis completes what look finds in the Redis that the environment names; nothing
// where that takes too long.
func fromRedis(look func(ctx context.Context, r *madcrow.Redis, args []string) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
		defer cancel()
		file := defaultEnvFile
		if f := c.Flags().Lookup("env-file"); f != nil {
			file = f.Value.String()
		}
		if loadEnvFile(file, false) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		r, err := openReal(ctx, completeWithin)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found := look(ctx, r, args)
		_ = r.Close(ctx)
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// namesOf completes the names of a kind, as the argument at a place, or as a flag where
// that is -1.
func namesOf(kind inventory.Kind, place int) cobra.CompletionFunc {
	names := fromRedis(func(ctx context.Context, r *madcrow.Redis, _ []string) []string {
		inv, err := inventory.Find(ctx, r, inventory.Options{Kind: kind, NamesOnly: true})
		if err != nil {
			return nil
		}
		return inv.Names(kind)
	})
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if place >= 0 && len(args) != place {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(c, args, typed)
	}
}

// groupsOf completes the groups of the stream that is the first argument.
var groupsOf = fromRedis(func(ctx context.Context, r *madcrow.Redis, args []string) (names []string) {
	if len(args) == 0 {
		return nil
	}
	s, _, err := inventory.FindStream(ctx, r, args[0])
	if err != nil {
		return nil
	}
	for _, g := range s.Groups {
		names = append(names, g.Name)
	}
	return names
})

// addCompletions has all commands below root complete the values of their flags, and
// names.
func addCompletions(root *cobra.Command) {
	for _, c := range root.Commands() {
		addCompletions(c)
	}
	parent := root.Name()
	if root.HasParent() && root.Parent().HasParent() {
		parent = root.Parent().Name()
	}
	for flag, complete := range map[string]cobra.CompletionFunc{
		"output": values("text", "json"), "algorithm": values(algorithmList...), "codec": values(codecJSON, codecText, codecBytes),
		"log-format": values("text", "json"), "log-level": values("debug", "info", "warn", "error"), "group": groupsOf,
		"name": namesOf(map[string]inventory.Kind{"cache": inventory.Caches, "limit": inventory.Limits, "session": inventory.Sessions}[parent], -1),
	} {
		if root.Flags().Lookup(flag) != nil {
			_ = root.RegisterFlagCompletionFunc(flag, complete) // each once
		}
	}
	switch {
	case root.HasSubCommands() || len(root.ValidArgs) > 0:
	case parent == "stream":
		root.ValidArgsFunction = namesOf(inventory.Streams, 0)
	case parent == "tail":
		root.ValidArgsFunction = namesOf(inventory.Topics, 0)
	default:
		root.ValidArgsFunction = cobra.NoFileCompletions
	}
}
