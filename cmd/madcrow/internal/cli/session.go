package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/session"
)

// sessionOptions are the flags of all session commands; each has those it needs.
type sessionOptions struct {
	name, secretFile string
	fastAPI          string
	secret           []byte // what is in secretFile
	data, all        bool
	oneshot
}

var sessionExits = exits("0 found, or done", "3 there is no such session, user or name")

func newSession() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "List, look at and end the sessions of a user",
		Long: `Work on the sessions (package session) in the Redis that the environment names,
as the programs that share it do.

USER is what the program gives to Login: often a number, and not a name. HANDLE
is a session's name in a list; it is a hash, and not enough to act as
the user. Identifiers themselves are not stored, and never printed. Sessions
without a login cannot be found.

--name is the name of the sessions in the program (session.New); where there is
one name only it is found. Options.Secret of the program must be given with
--secret-file: with another one no session can be found, and that is said.

--fastapi works on a session of FastAPI Madcrow and of package service
(session:{id}), by its identifier.` + sessionExits,
		Example: `  madcrow session list 42
  madcrow session show 42 HANDLE --data
  madcrow session revoke 42 HANDLE
  madcrow session revoke 42 --all --name web --secret-file secret
  madcrow session show --fastapi - < identifier`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (before a USER that begins with '-' write --)", flagError(c, err))}
	})
	cmd.AddCommand(newSessionList(), newSessionShow(), newSessionRevoke())
	return cmd
}

func newSessionList() *cobra.Command {
	o := &sessionOptions{}
	return o.command("list USER", "List where a user is logged in",
		`List the live sessions of USER, the latest made first: handle, when it was made
and last used (to a tenth of the idle time), when it ends at the latest, and the
client's address and device at the login. No session lives
longer for being looked at.`,
		`  madcrow session list 42
  madcrow session list 42 --name admin --secret-file secret -o json`, listSessions)
}

func newSessionShow() *cobra.Command {
	o := &sessionOptions{}
	cmd := o.command("show {USER HANDLE | --fastapi ID}", "Look at one session",
		`Print what is known of one session. It lives no longer for that.

--data prints what the program keeps in it too, which may be anything. Data that
is encrypted (Options.EncryptionKeys) is only said to be so.`,
		`  madcrow session show 42 HANDLE
  madcrow session show 42 HANDLE --data -o json
  madcrow session show --fastapi - --data < identifier`, showSession)
	cmd.Flags().BoolVar(&o.data, "data", false, "print the data of the session too")
	return o.addFastAPI(cmd)
}

func newSessionRevoke() *cobra.Command {
	o := &sessionOptions{}
	cmd := o.command("revoke {USER HANDLE | USER --all | --fastapi ID}", "End one session, or all of a user",
		`End one session of USER, or all of them, at once: when it has returned no
process can read or write them, but for routes that read copies while Redis is
away (madcrow.FailStale). The number of --all may count some that had ended
unused.`,
		`  madcrow session revoke 42 HANDLE
  madcrow session revoke 42 --all
  madcrow session revoke --fastapi - < identifier`, revokeSessions)
	cmd.SuggestFor = []string{"delete", "remove", "rm", "end", "kill", "logout"}
	cmd.Flags().BoolVar(&o.all, "all", false, "end all sessions of the user")
	return o.addFastAPI(cmd)
}

// sessionWork is one of the commands. It prints its answer itself.
type sessionWork func(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *sessionOptions, args []string) error

func (o *sessionOptions) command(use, short, long, example string, work sessionWork) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long + sessionExits, Example: example,
		DisableFlagsInUseLine: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != o.wanted(c) {
				return usageError{fmt.Errorf("wrong number of arguments: %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			return o.run(c, func(ctx context.Context, r *madcrow.Redis) (err error) {
				if o.name == "" && o.fastAPI == "" {
					if o.name, err = onlyName(ctx, r, inventory.Sessions, "--name"); err != nil {
						return err
					}
				}
				return work(ctx, c, r, o, args)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "the `name` of the sessions in the program (default the only one that there is)")
	f.StringVar(&o.secretFile, "secret-file", "", "`file` with Options.Secret of the program; a newline at its end does not count")
	o.addFlags(cmd)
	return cmd
}

func (o *sessionOptions) addFastAPI(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&o.fastAPI, "fastapi", "", "the session of FastAPI Madcrow with this `identifier`; - reads it from standard input")
	return cmd
}

// wanted is how many arguments there must be.
func (o *sessionOptions) wanted(c *cobra.Command) int {
	switch {
	case c.Flags().Changed("fastapi"):
		return 0
	case o.all || c.Name() == "list":
		return 1
	}
	return 2
}

// check refuses what cannot be meant, and reads what is named.
func (o *sessionOptions) check(c *cobra.Command) error {
	f := c.Flags()
	if f.Changed("fastapi") {
		for _, name := range []string{"name", "secret-file", "all"} {
			if f.Changed(name) {
				return usageError{fmt.Errorf("--%s does not go with --fastapi: its sessions have no users", name)}
			}
		}
		if o.fastAPI == "-" {
			line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), 64<<10)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			o.fastAPI = strings.TrimRight(line, "\r\n")
		}
		if o.fastAPI == "" {
			return usageError{errors.New("--fastapi: the identifier is empty")}
		}
	}
	for _, name := range []string{"name", "secret-file"} {
		if f.Changed(name) && f.Lookup(name).Value.String() == "" {
			return usageError{fmt.Errorf("--%s must not be empty", name)}
		}
	}
	if o.secretFile != "" {
		text, err := os.ReadFile(o.secretFile)
		if err != nil {
			return usageError{fmt.Errorf("--secret-file: %w", err)}
		}
		if o.secret = []byte(strings.TrimRight(string(text), "\r\n")); len(o.secret) == 0 {
			return usageError{errors.New("--secret-file: the file is empty")}
		}
	}
	return o.oneshot.check(c)
}

// sessions is the manager of the program's sessions, for data of any kind.
func (o *sessionOptions) sessions(r *madcrow.Redis) (*session.Manager[any], error) {
	opt := session.Options[any]{FastAPILayout: o.fastAPI != "", Secret: o.secret}
	name := o.name
	if o.fastAPI != "" {
		name = "web" // its keys have none
	}
	return session.New(r, name, opt)
}

// none says why no session was found: another secret, no sessions of that name, or
// text.
func (o *sessionOptions) none(ctx context.Context, r *madcrow.Redis, m *session.Manager[any], text string) error {
	switch _, err := m.CheckSecret(ctx); {
	case errors.Is(err, session.ErrOtherSecret) && o.secretFile == "":
		return fmt.Errorf("the sessions of %q have a secret: give --secret-file", o.name)
	case errors.Is(err, session.ErrOtherSecret):
		return fmt.Errorf("the sessions of %q have another secret: give --secret-file with that of the program", o.name)
	case err != nil:
		return err
	}
	inv, err := find(ctx, r, inventory.Sessions)
	if err == nil && !slices.Contains(inv.Names(inventory.Sessions), o.name) {
		return noSuch(ctx, r, inventory.Sessions, "session name", o.name)
	}
	return notThere{text}
}

// asSessionUsage makes what was typed wrong an error of the one who typed.
func asSessionUsage(err error) error {
	var v *madcrow.ArgumentError
	if errors.As(err, &v) {
		return usageError{fmt.Errorf("%s: %s", v.Argument, v.Reason)}
	}
	return err
}

// handlePattern is that of handles that look like flags: one in 64 does.
var handlePattern = regexp.MustCompile(`^-[A-Za-z0-9_-]{42}$`)

// withHandles moves the handles of sessions that begin with "-" behind "--", where
// they are no flags. A value of a flag that stands by itself is left alone.
func withHandles(args []string) []string {
	if len(args) == 0 || args[0] != "session" {
		return args
	}
	var before, behind []string
	for i, arg := range args {
		switch {
		case arg == "--":
			return args // the user has done it
		case handlePattern.MatchString(arg) && !slices.Contains([]string{"--fastapi", "--name", "--secret-file", "--env-file", "--timeout", "--output", "-o"}, args[i-1]):
			behind = append(behind, arg)
		default:
			before = append(before, arg)
		}
	}
	if behind == nil {
		return args
	}
	return append(append(before, "--"), behind...)
}
