package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
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

// openReal opens the Redis that the environment names, and waits until it is
// connected. An embedded one would be empty, and end with this command.
func openReal(ctx context.Context, timeout time.Duration) (*madcrow.Redis, error) {
	cfg, err := madcrow.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	if !(madcrow.Env{}).NamesRedis() && !cfg.Require {
		return nil, usageError{errors.New("no Redis is named: set REDIS_HOST=localhost for the one on this machine, or REDIS_URL, REDIS_SENTINELS or REDIS_CLUSTERS")}
	}
	cfg.Require = true
	cfg.ConnectTimeout = max(min(cfg.ConnectTimeout, timeout), time.Millisecond)
	cfg.Logger = slog.New(slog.DiscardHandler) // the error says it all
	return madcrow.Open(ctx, cfg)
}

// asUsage makes what was typed wrong an error of the one who typed.
func asUsage(err error) error {
	var a *madcrow.ArgumentError
	if errors.As(err, &a) {
		return usageError{fmt.Errorf("%s: %s", a.Argument, a.Reason)}
	}
	return err
}
