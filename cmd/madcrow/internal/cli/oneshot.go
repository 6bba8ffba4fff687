package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// oneshot is what commands that ask Redis once have in common.
type oneshot struct {
	output, envFile string
	timeout         time.Duration
}

func (o *oneshot) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "text", "`text or json`")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "give up after this time")
	addEnvFileFlag(cmd, &o.envFile)
}

// check refuses what cannot be meant, and reads the settings.
func (o *oneshot) check(c *cobra.Command) error {
	if o.output != "text" && o.output != "json" {
		return usageError{fmt.Errorf("--output: %q is not text or json", o.output)}
	}
	if o.timeout <= 0 {
		return usageError{errors.New("--timeout must be more than 0")}
	}
	return loadEnvFile(o.envFile, c.Flags().Changed("env-file"))
}

// run connects, works and closes, within the time-out and until a signal.
func (o *oneshot) run(c *cobra.Command, work func(ctx context.Context, r *madcrow.Redis) error) error {
	signalled, restore := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	defer context.AfterFunc(signalled, restore)() // the second signal ends it at once
	ctx, cancel := context.WithTimeout(signalled, o.timeout)
	defer cancel()
	r, err := openReal(ctx, o.timeout)
	if err == nil {
		err = asUsage(work(ctx, r))
		// A short command does not wait for what the server still has to say.
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.Close(end)
	}
	if err != nil && !isAnswer(err) && signalled.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// done prints one answer.
func (o *oneshot) done(c *cobra.Command, text string, answer any) error {
	if o.output == "json" {
		line, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		text = string(line)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), text)
	return err
}

// noRedis is what a command that needs a real Redis says where none is named.
const noRedis = "no Redis is named: set REDIS_HOST=localhost for the one on this machine, or REDIS_URL, REDIS_SENTINELS or REDIS_CLUSTERS"

// openReal opens the Redis that the environment names, and waits until it is
// connected. An embedded one would be empty, and end with this command.
func openReal(ctx context.Context, timeout time.Duration) (*madcrow.Redis, error) {
	cfg, err := madcrow.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	if !(madcrow.Env{}).NamesRedis() {
		return nil, usageError{errors.New(noRedis)}
	}
	cfg.Require = false // awaitConnected waits, and no longer than it helps
	cfg.ConnectTimeout = max(min(cfg.ConnectTimeout, timeout), time.Millisecond)
	cfg.Logger = slog.New(slog.DiscardHandler) // the error says it all
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := awaitConnected(ctx, r); err != nil {
		_ = r.Close(ctx)
		return nil, err
	}
	return r, nil
}

// awaitConnected waits for the first connection, up to Config.ConnectTimeout. It
// waits for a Redis that is slow or still starting; any other failure, such as a
// refused connection, is said at once.
func awaitConnected(ctx context.Context, r *madcrow.Redis) error {
	within := r.Config().ConnectTimeout
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for st := range r.Watch(ctx) {
		switch st.State {
		case madcrow.StateUp, madcrow.StateDegraded:
			return nil
		case madcrow.StateDown:
			if !maySoonPass(st.Err) {
				return st.Err
			}
		}
	}
	err := r.Err()
	var e *madcrow.Error
	if errors.As(err, &e) {
		return &madcrow.Error{Op: e.Op, Kind: e.Kind, Outcome: e.Outcome, Err: fmt.Errorf("not connected within %v: %w", within, e.Err)}
	}
	return err
}

// maySoonPass says whether an attempt to connect that failed like this may succeed
// a moment later.
func maySoonPass(err error) bool {
	var slow net.Error
	return errors.Is(err, fault.ErrSilent) || errors.Is(err, madcrow.ErrLoading) || errors.Is(err, madcrow.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &slow) && slow.Timeout()
}

// asUsage makes what was typed wrong an error of the one who typed.
func asUsage(err error) error {
	var a *madcrow.ArgumentError
	if errors.As(err, &a) {
		return usageError{fmt.Errorf("%s: %s", a.Argument, a.Reason)}
	}
	return err
}
