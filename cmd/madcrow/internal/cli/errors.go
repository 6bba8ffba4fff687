package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/typo"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it ran, and failed
	exitUsage  = 2 // the command line or the configuration is wrong
	exitDenied = 3 // a limit said no
	exitMiss   = 3 // what was named is not there
)

// exits is the last paragraph of a command's help. more are those that have a
// meaning of their own: "0 done" is said where none begins with 0.
func exits(more ...string) string {
	codes := append([]string{"1 failed", "2 wrong command line or settings"}, more...)
	if !slices.ContainsFunc(more, func(text string) bool { return text[0] == '0' }) {
		codes = append(codes, "0 done")
	}
	slices.Sort(codes)
	return "\n\nExit codes:\n  " + strings.Join(codes, "\n  ")
}

// These are answers, not failures; what they are was printed.
var (
	errDenied = errors.New("denied")
	errMiss   = errors.New("not found")
)

// notThere is an answer too: what was named is not there. Its text says what is.
type notThere struct{ text string }

func (e notThere) Error() string { return e.text }

func isAnswer(err error) bool {
	var absent notThere
	return errors.Is(err, errDenied) || errors.Is(err, errMiss) || errors.As(err, &absent)
}

// usageError is a mistake of the one who typed.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// report says on stderr what went wrong, and returns the exit code. c is the
// command that failed.
func report(stderr io.Writer, c *cobra.Command, err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.Is(err, errMiss):
		return exitMiss
	}
	// Errors of the library begin with its name, which is that of the program too.
	_, _ = fmt.Fprintln(stderr, "madcrow: "+strings.TrimPrefix(err.Error(), "madcrow: "))
	var absent notThere
	var u usageError
	switch {
	case errors.As(err, &absent):
		return exitMiss
	case errors.As(err, &u):
		_, _ = fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", c.CommandPath())
		return exitUsage
	case errors.Is(err, madcrow.ErrConfig):
		return exitUsage
	}
	return exitFailed
}

// usageArgs refuses arguments, for the commands that take none.
func usageArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasAvailableSubCommands() {
		return usageError{fmt.Errorf("%s takes no arguments: %q", c.CommandPath(), args[0])}
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
			for _, other := range sub.SuggestFor {
				if strings.EqualFold(other, args[0]) {
					return usageError{fmt.Errorf("unknown command %q for %q: did you mean %q?", args[0], c.CommandPath(), sub.Name())}
				}
			}
		}
	}
	return usageError{fmt.Errorf("unknown command %q for %q%s", args[0], c.CommandPath(), didYouMean(args[0], names))}
}

// flagError is the error of a flag that cannot be read.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return usageError{err}
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return usageError{fmt.Errorf("%w%s", err, didYouMean("--"+unknown.GetSpecifiedName(), names))}
}

// didYouMean names the name that was probably meant, or is empty.
func didYouMean(typed string, names []string) string {
	best, least := "", len(typed)/3+1
	for _, name := range names {
		d := typo.Distance(strings.ToLower(typed), strings.ToLower(name))
		if d > 0 && strings.HasPrefix(name, typed) {
			d = 1
		}
		if d < least || d == least && best == "" {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}
