package cli

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
)

// version is set by the build: -ldflags "-X …/internal/cli.version=v1.2.3".
var version string

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(withHandles(args))
	root.SetOut(stdout)
	root.SetErr(stderr)
	c, err := root.ExecuteContextC(ctx)
	return report(stderr, c, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "madcrow",
		Short: "Redis for web services: cache, sessions, rate limits, messages",
		Long: `madcrow serves a cache, sessions, rate limits and messages over HTTP, on Redis,
and looks at what Go programs keep there with the library of the same name.

Every command but serve needs a Redis: REDIS_HOST=localhost names the one on
this machine, REDIS_URL any; 'madcrow config' shows what is in force. Programs
that set REDIS_KEY_PREFIX need the same here. Settings may stand in a file .env.` +
			exits("3 denied, or what was named is not there"),
		Example: `  madcrow serve                             # with its own Redis, in memory
  REDIS_HOST=localhost madcrow serve
  madcrow ls                                # what is there
  madcrow session list 42                   # where user 42 is logged in
  madcrow limit peek 192.0.2.1 --name api   # what is counted for an address
  madcrow stream info mails                 # how far its workers are behind
  madcrow tail news --history 10            # messages as they come`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(), newList(), newCache(), newLimit(), newPublish(), newTail(), newStream(), newSession(), newVersion(), newConfig())
	addCompletions(root)
	root.SetUsageTemplate(usageTemplate(root))
	root.AddGroup(
		&cobra.Group{ID: groupServe, Title: "Serve:"}, &cobra.Group{ID: groupFind, Title: "Find and listen:"},
		&cobra.Group{ID: groupWork, Title: "Work on what is there:"}, &cobra.Group{ID: groupSelf, Title: "This program:"},
	)
	for name, group := range map[string]string{
		"serve": groupServe, "ls": groupFind, "tail": groupFind, "cache": groupWork, "limit": groupWork, "session": groupWork,
		"stream": groupWork, "publish": groupWork, "config": groupSelf, "version": groupSelf,
	} {
		if c, _, err := root.Find([]string{name}); err == nil {
			c.GroupID = group
		}
	}
	root.SetHelpCommandGroupID(groupSelf)
	root.SetCompletionCommandGroupID(groupSelf)
	return root
}

// Groups of commands.
const (
	groupServe = "serve"
	groupFind  = "find"
	groupWork  = "work"
	groupSelf  = "self"
)

// usageTemplate is that of cobra, but that a command with commands has no usage line
// of its own.
func usageTemplate(root *cobra.Command) string {
	return strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usageArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "madcrow "+buildVersion())
			return err
		},
	}
}

// buildVersion is the release, or what the build knows of itself.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func newConfig() *cobra.Command {
	var envFile string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective Redis settings, without secrets",
		Long: `Print the settings of Redis that are in force, from the environment and the file
.env, and warnings about them. Secrets are only said to be set. Redis is not
asked.` + exits(),
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := loadEnvFile(envFile, c.Flags().Changed("env-file")); err != nil {
				return err
			}
			cfg, err := madcrow.ConfigFromEnv()
			if err != nil {
				return err
			}
			return printConfig(c.OutOrStdout(), cfg)
		},
	}
	addEnvFileFlag(cmd, &envFile)
	return cmd
}
