// Package madcrowfx is Madcrow for programs that are put together by fx.
//
//	fx.New(
//		madcrowfx.Module,
//		fx.Provide(newUsers, newServer),
//		fx.Invoke(func(*http.Server) {}),
//	).Run()
//
//	func newUsers(r *madcrow.Redis, deps *inject.Set) (inject.Dep[*cache.Cache[User]], error)
//
// The Redis is open when constructors get it, and closed, its calls in flight
// finished, when the program stops: after whatever was built of it.
package madcrowfx

import (
	"context"
	"log/slog"

	"go.uber.org/fx"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/inject"
)

// Module provides a [*madcrow.Redis] and an [*inject.Set] by New.
var Module = fx.Module("madcrow", fx.Provide(New))

// Params is what New takes.
type Params struct {
	fx.In

	Lifecycle fx.Lifecycle
	// Config defaults to that of the environment.
	Config *madcrow.Config `optional:"true"`
	// Logger defaults to that of the Config.
	Logger *slog.Logger `optional:"true"`
	// Options are those of the set. They default to the Logger, without rules.
	Options *inject.Options `optional:"true"`
}

// Result is what New provides.
type Result struct {
	fx.Out

	Redis *madcrow.Redis
	Set   *inject.Set
}

// New opens a Redis, as [madcrow.Open] does: at once, unless the configuration
// requires a connection. It is closed when the program stops.
func New(p Params) (Result, error) {
	var cfg madcrow.Config
	var err error
	if p.Config != nil {
		cfg = *p.Config
	} else if cfg, err = madcrow.ConfigFromEnv(); err != nil {
		return Result{}, err
	}
	if p.Logger != nil {
		cfg.Logger = p.Logger
	}
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		return Result{}, err
	}
	p.Lifecycle.Append(fx.StopHook(r.Close))
	var options inject.Options
	if p.Options != nil {
		options = *p.Options
	}
	return Result{Redis: r, Set: inject.New(r, options)}, nil
}
