package cli

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

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
		Long: `madcrow serves a cache, sessions, rate limits and messages over HTTP, on Redis.

Start it with nothing configured and it brings its own Redis, in memory:

  madcrow serve

Use the Redis on this machine:

  REDIS_HOST=localhost madcrow serve`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(), newList(), newCache(), newLimit(), newPublish(), newTail(), newStream(), newSession(), newVersion(), newConfig())
	addCompletions(root)
	return root
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
		Args:  usageArgs,
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
