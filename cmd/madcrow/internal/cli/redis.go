package cli

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/embedded"
)

// embeddedNote is for the log and for health.
const embeddedNote = "An embedded Redis is in use, for development: its data is in the memory of this process, " +
	"is shared with nobody and is gone when the process ends. " +
	"Set REDIS_HOST=localhost to use the Redis on this machine"

// openRedis opens the Redis that the environment names, or an embedded one
// when it names none and this is not production.
func openRedis(ctx context.Context, log *slog.Logger) (*redisInUse, error) {
	cfg, err := madcrow.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	cfg.Logger = log
	out := &redisInUse{}
	if !(madcrow.Env{}).NamesRedis() && !cfg.Require {
		srv, err := embedded.Start(embedded.Options{})
		if err != nil {
			return nil, fmt.Errorf("start the embedded Redis: %w", err)
		}
		cfg = embeddedConfig(srv.Config(), cfg)
		out.note, out.stop = embeddedNote, func() { srv.Close() }
	}
	if out.Redis, err = madcrow.Open(ctx, cfg); err != nil {
		if out.stop != nil {
			out.stop()
		}
		return nil, err
	}
	return out, nil
}

// embeddedConfig is where the embedded Redis is, and how the environment wants
// it to be used.
func embeddedConfig(where, how madcrow.Config) madcrow.Config {
	where.KeyPrefix = how.KeyPrefix
	where.MaxConnections = how.MaxConnections
	where.CommandTimeout = how.CommandTimeout
	where.ConnectTimeout = how.ConnectTimeout
	where.Logger = how.Logger
	where.Warnings = how.Warnings
	return where
}
