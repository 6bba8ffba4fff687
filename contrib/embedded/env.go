package embedded

import (
	"fmt"

	"github.com/madcrow-go/madcrow"
)

// ConfigFromEnv is madcrow.ConfigFromEnv for a program that also runs with nothing
// installed: where the environment names no Redis, it starts an embedded one, and the
// other settings of the environment stay (see [Server.Apply]).
//
//	cfg, stop, err := embedded.ConfigFromEnv(embedded.Options{Logger: log})
//	…
//	defer stop() // runs after the next line
//	r, err := madcrow.Open(ctx, cfg)
//	…
//	defer r.Close(ctx)
//
// Call stop after the Redis is closed. It closes the embedded one, and does nothing
// where there is none. Config.Embedded says which it is.
//
// In production (DEPLOY_ENV=PRODUCTION) an environment that names no Redis is an
// error at once: [ErrProduction], and madcrow.ErrConfig. Other mistakes in the
// settings are those of madcrow.ConfigFromEnv.
func ConfigFromEnv(opts Options) (cfg madcrow.Config, stop func(), err error) {
	stop = func() {}
	if cfg, err = opts.Env.Config(); err != nil {
		return madcrow.Config{}, stop, err
	}
	cfg.Logger = opts.Logger
	if opts.Env.NamesRedis() {
		return cfg, stop, nil
	}
	if cfg.DeployEnv == madcrow.Production {
		return madcrow.Config{}, stop, failure(madcrow.KindConfig, fmt.Errorf("no Redis is named: %w", ErrProduction))
	}
	srv, err := Start(opts)
	if err != nil {
		return madcrow.Config{}, stop, err
	}
	return srv.Apply(cfg), srv.Close, nil
}

// Apply returns cfg with the embedded Redis in the place of the one that it names:
// like [Server.Config], and without the credentials, TLS, Sentinels, nodes, replicas
// and Dialer of cfg. What says how a Redis is used stays: KeyPrefix, the time-outs and
// the other bounds, DB, Logger, Recorder and Warnings.
func (s *Server) Apply(cfg madcrow.Config) madcrow.Config {
	where := s.Config()
	cfg.Host, cfg.Port, cfg.Socket = where.Host, where.Port, ""
	cfg.Embedded, cfg.Dialer = true, where.Dialer
	cfg.Username, cfg.Password, cfg.Credentials = "", "", nil
	cfg.TLS, cfg.Sentinel, cfg.Cluster = madcrow.TLS{}, madcrow.Sentinel{}, madcrow.Cluster{}
	cfg.ReadReplicas = false
	return cfg
}
