package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it ran, and failed
	exitUsage  = 2 // the command line or the configuration is wrong
	exitDenied = 3 // a limit said no
	exitMiss   = 3 // there is no such key
)

// version is set by the build: -ldflags "-X …/internal/cli.version=v1.2.3".
var version string

// These are answers, not failures; what they are was printed.
var (
	errDenied = errors.New("denied")
	errMiss   = errors.New("not found")
)

func isAnswer(err error) bool { return errors.Is(err, errDenied) || errors.Is(err, errMiss) }

// usageError is a mistake of the one who typed.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	switch {
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.Is(err, errMiss):
		return exitMiss
	}
	_, _ = fmt.Fprintf(stderr, "madcrow: %v\n", err)
	var u usageError
	switch {
	case errors.As(err, &u):
		_, _ = fmt.Fprintln(stderr, "Run 'madcrow --help' for usage.")
		return exitUsage
	case errors.Is(err, madcrow.ErrConfig):
		return exitUsage
	}
	return exitFailed
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
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newServe(), newCache(), newLimit(), newPublish(), newTail(), newStream(), newSession(), newVersion(), newConfig())
	return root
}

// usageArgs refuses arguments, for the commands that take none.
func usageArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())}
	}
	return nil
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
