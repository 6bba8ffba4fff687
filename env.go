package madcrow

import "github.com/madcrow-go/madcrow/internal/settings"

// ConfigFromEnv reads the environment of this process: the settings of
// docs/settings.md, such as REDIS_HOST or REDIS_URL. It is Env{}.Config().
func ConfigFromEnv() (Config, error) { return Env{}.Config() }

// Env reads a [Config] from environment variables. The zero value reads those
// of this process. It reads no .env file: a program that wants one loads it
// first.
type Env struct {
	// Prefix stands before every name, for a process with several Redis: with
	// "ORDERS_" the host is ORDERS_REDIS_HOST. It ends with "_". DEPLOY_ENV is
	// never prefixed. Defaults to none.
	Prefix string
	// Lookup returns a variable and whether it is set. Defaults to
	// os.LookupEnv.
	Lookup func(string) (string, bool)
	// ReadFile reads the file that a NAME_FILE variable names. Defaults to
	// os.ReadFile.
	ReadFile func(string) ([]byte, error)
}

// Config reads and validates the whole configuration. An empty variable is one
// that is not set, an unknown name is ignored, and defaults are filled in. Without
// Lookup, a name that is nearly that of a setting (REDIS_HOTS) has a warning.
// Each secret may come from a file instead, for mounted secrets:
// REDIS_PASSWORD_FILE names the file, whose trailing newline is dropped.
//
// REDIS_URL supplies all that it contains; REDIS_USERNAME, REDIS_PASSWORD and
// REDIS_DB fill in what it omits, and what it overrules becomes a warning in
// Config.Warnings.
//
// The error is [ErrConfig] and lists every problem as a [ConfigError]; it and
// the warnings hold no secret.
func (e Env) Config() (Config, error) { return configOf(settings.Env(e).Values()) }

// NamesRedis says whether the environment says at all which Redis to use, by
// REDIS_URL, REDIS_HOST, REDIS_SENTINELS or REDIS_CLUSTERS.
func (e Env) NamesRedis() bool { return settings.Env(e).NamesRedis() }

// ParseURL reads one URL:
//
//	redis://[[user]:password@]host[:port][/db]
//	unix://[[user]:password@]/path/of/socket[?db=0]
//	redis-sentinel://[[user]:password@]host[:port],…[/db]?master=name
//	redis+sentinel://[[user]:password@]host[:port],…/name[/db]
//	redis-cluster://[[user]:password@]host[:port],…
//
// valkey and valkeys are other names of redis and rediss. rediss,
// rediss-sentinel, rediss+sentinel and rediss-cluster are the same over TLS;
// redis+unix is another name of unix. Both Sentinel spellings take the
// master's name either way, also as sentinelMasterId, and sentinel_username
// and sentinel_password for the Sentinels themselves. Every scheme takes the
// database as ?db= too. Ports default to 6379, those of Sentinels to 26379;
// IPv6 addresses stand in brackets.
//
// Credentials without a colon are a password, as redis-cli has it. A special
// character in them is written percent-encoded ("/" is %2F). Parameters that
// redis-py, Celery, go-redis, rueidis, ioredis and lettuce know are read where
// they mean a setting, and otherwise ignored with a warning in
// Config.Warnings; one that would weaken TLS, and one that is unknown, is an
// error.
//
// Only the URL itself is read: what is beyond it (a service name that is
// missing, say) is found by [Open]. The error is [ErrConfig] and repeats no
// credentials, however broken the URL is.
func ParseURL(raw string) (Config, error) { return configOf(settings.ParseURL(raw)) }
