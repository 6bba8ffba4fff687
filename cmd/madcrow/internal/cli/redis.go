package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/embedded"
)

// embeddedNote is for the log and for health.
const embeddedNote = "An embedded Redis is in use, for development: its data is in the memory of this process, " +
	"is not shared and is gone when the process ends. " +
	"Set REDIS_HOST=localhost to use the Redis on this machine"

// openRedis opens the Redis that the environment names, or an embedded one
// when it names none and this is not production.
func openRedis(ctx context.Context, log *slog.Logger) (*redisInUse, error) {
	cfg, stop, err := embedded.ConfigFromEnv(embedded.Options{})
	if errors.Is(err, embedded.ErrProduction) {
		return nil, usageError{errors.New(noRedis)}
	} else if err != nil {
		return nil, err
	}
	cfg.Logger = log
	out := &redisInUse{stop: stop}
	if cfg.Embedded {
		out.note = embeddedNote
	}
	if out.Redis, err = madcrow.Open(ctx, cfg); err != nil {
		stop()
		return nil, err
	}
	return out, nil
}

// settleWithin is how long the announcement waits for the first connection.
// Nothing else waits for it.
const settleWithin = time.Second

// announce says which Redis is used, without secrets.
func announce(ctx context.Context, log *slog.Logger, r *redisInUse) {
	st := r.settled(ctx)
	attrs := []any{slog.String("mode", st.Mode), slog.String("state", st.State.String())}
	if !r.embedded() {
		for _, row := range whereIs(r.Config()) {
			attrs = append(attrs, slog.String(strings.ReplaceAll(row[0], " ", "_"), row[1]))
		}
		attrs = append(attrs, found(st)...)
	}
	log.Info("redis", attrs...)
	if r.note != "" {
		log.Warn(r.note)
	}
}

// whereIs names what is configured, for the log and for madcrow config.
func whereIs(cfg madcrow.Config) [][2]string {
	switch {
	case cfg.Sentinel.Enabled:
		return [][2]string{{"master name", cfg.Sentinel.ServiceName}, {"sentinels", strings.Join(cfg.Sentinel.Addresses, ", ")}}
	case cfg.Cluster.Enabled:
		return [][2]string{{"seeds", strings.Join(cfg.Cluster.Addresses, ", ")}}
	case cfg.Socket != "":
		return [][2]string{{"address", cfg.Socket}}
	}
	return [][2]string{{"address", net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))}}
}

// found names what was found by asking Sentinels or nodes.
func found(st madcrow.Status) []any {
	switch {
	case st.Sentinels != nil && st.Master != "":
		return []any{slog.String("master", st.Master), slog.Int("quorum", st.Sentinels.Quorum)}
	case len(st.Nodes) > 0:
		nodes := make([]string, len(st.Nodes))
		for i, n := range st.Nodes {
			nodes[i] = n.Address
		}
		return []any{slog.String("masters", strings.Join(nodes, ", ")), slog.Int("slots_covered", st.SlotsCovered)}
	}
	return nil
}

// settled waits until the first connection was made or has failed, up to settleWithin: a cluster of which the first
// nodes are connected is still on its way.
func (r *redisInUse) settled(ctx context.Context) madcrow.Status {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for st := range r.Watch(ctx) {
		onTheWay := st.State == madcrow.StateConnecting || st.State == madcrow.StateDegraded && len(st.Nodes) > 0 && !st.ReadOnly
		if !onTheWay {
			return st
		}
	}
	return r.Status()
}

// redisInUse is the connection, and the embedded Redis when there is one.
type redisInUse struct {
	*madcrow.Redis
	note string
	stop func()
}

func (r *redisInUse) embedded() bool { return r.note != "" }

func (r *redisInUse) close(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := r.Close(ctx)
	r.stop()
	if err != nil {
		return fmt.Errorf("close Redis: %w", err)
	}
	return nil
}
