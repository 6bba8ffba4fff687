package madcrow

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/envvalue"
)

// setting is one row of the settings table, from which the environment is
// read, ranges are checked, defaults are filled in, problems are named and
// docs/settings.md is written.
type setting struct {
	name  string // in the environment, without a prefix
	field string // in Config; empty for REDIS_URL
	kind  string // the type, in words
	def   any    // of the field's type; nil when there is none
	note  string // what stands in the documentation in the place of def
	// min and max bound a whole number, or a duration in nanoseconds.
	min, max int64
	secret   bool      // its value is never shown
	file     bool      // NAME_FILE may name a file that holds it
	beside   besideURL // what it does where REDIS_URL is set
	help     string
	ref      func(*Config) any // points to the field
}

// besideURL says what a setting does where REDIS_URL is set.
type besideURL uint8

const (
	applies besideURL = iota // the URL cannot say it
	fills                    // it counts where the URL is silent
	ignored                  // the URL says it, or makes it meaningless
)

// The kinds of settings.
const (
	kindText     = "text"
	kindNumber   = "whole number"
	kindBytes    = "bytes"
	kindBool     = "true/false"
	kindDuration = "duration"
	kindList     = "host:port, …"
	kindFile     = "file"
	kindURL      = "URL"
	kindDeploy   = Development + " or " + Production
)

const (
	minTimeout = int64(time.Millisecond)
	maxTimeout = int64(time.Hour)
	maxDB      = math.MaxInt32
	maxBytes   = 1 << 30

	defaultSentinelTimeout = 100 * time.Millisecond
)

// The settings that the code names.
const (
	envURL    = "REDIS_URL"
	envDeploy = "DEPLOY_ENV"
)

// settings is the table, in the order of the documentation.
var settings = []setting{
	{
		name: envURL, kind: kindURL, secret: true, file: true,
		help: "One URL in the place of the settings that it contains; see below.",
	},
	{
		name: "REDIS_HOST", field: "Host", kind: kindText, def: DefaultHost, beside: ignored,
		help: "Name or IP address of a standalone Redis.",
		ref:  func(c *Config) any { return &c.Host },
	},
	{
		name: "REDIS_PORT", field: "Port", kind: kindNumber, def: DefaultPort, min: 1, max: 65535, beside: ignored,
		help: "Its port.",
		ref:  func(c *Config) any { return &c.Port },
	},
	{
		name: "REDIS_USERNAME", field: "Username", kind: kindText, file: true, beside: fills,
		help: "ACL user. Without it Redis takes its user `default`.",
		ref:  func(c *Config) any { return &c.Username },
	},
	{
		name: "REDIS_PASSWORD", field: "Password", kind: kindText, secret: true, file: true, beside: fills,
		help: "Password of that user.",
		ref:  func(c *Config) any { return (*string)(&c.Password) },
	},
	{
		name: "REDIS_DB", field: "DB", kind: kindNumber, def: 0, max: maxDB, beside: fills,
		help: "Number of the database. A cluster has only 0.",
		ref:  func(c *Config) any { return &c.DB },
	},
	{
		name: "REDIS_KEY_PREFIX", field: "KeyPrefix", kind: kindText,
		help: "Stands before every key that the library builds, so that several applications can share one Redis. At most 128 bytes; no braces, no control characters.",
		ref:  func(c *Config) any { return &c.KeyPrefix },
	},

	{
		name: "REDIS_USE_SSL", field: "TLS.Enabled", kind: kindBool, def: false, beside: ignored,
		help: "Encrypts the connection with TLS 1.2 or later; certificate and host name are verified.",
		ref:  func(c *Config) any { return &c.TLS.Enabled },
	},
	{
		name: "REDIS_SSL_CA_FILE", field: "TLS.CAFile", kind: kindFile, note: "the system's",
		help: "PEM file with the authorities to trust.",
		ref:  func(c *Config) any { return &c.TLS.CAFile },
	},
	{
		name: "REDIS_SSL_CERT_FILE", field: "TLS.CertFile", kind: kindFile,
		help: "PEM file with the client's certificate; needs the key.",
		ref:  func(c *Config) any { return &c.TLS.CertFile },
	},
	{
		name: "REDIS_SSL_KEY_FILE", field: "TLS.KeyFile", kind: kindFile,
		help: "PEM file with the client's key; needs the certificate.",
		ref:  func(c *Config) any { return &c.TLS.KeyFile },
	},
	{
		name: "REDIS_SSL_SERVER_NAME", field: "TLS.ServerName", kind: kindText, note: "the host dialled",
		help: "Name that the server's certificate must carry.",
		ref:  func(c *Config) any { return &c.TLS.ServerName },
	},
	{
		name: "REDIS_SSL_INSECURE_SKIP_VERIFY", field: "TLS.InsecureSkipVerify", kind: kindBool, def: false,
		help: "Accepts any certificate, so that anybody on the way can read and change everything. Logged as a warning at every start.",
		ref:  func(c *Config) any { return &c.TLS.InsecureSkipVerify },
	},

	{
		name: "REDIS_USE_SENTINEL", field: "Sentinel.Enabled", kind: kindBool, def: false, beside: ignored,
		help: "Finds the master through Redis Sentinel.",
		ref:  func(c *Config) any { return &c.Sentinel.Enabled },
	},
	{
		name: "REDIS_SENTINELS", field: "Sentinel.Addresses", kind: kindList, beside: ignored,
		help: "The Sentinels, at least one. The port defaults to 26379.",
		ref:  func(c *Config) any { return &c.Sentinel.Addresses },
	},
	{
		name: "REDIS_SENTINEL_SERVICE_NAME", field: "Sentinel.ServiceName", kind: kindText, beside: fills,
		help: "Name of the master that the Sentinels watch. Required with Sentinel.",
		ref:  func(c *Config) any { return &c.Sentinel.ServiceName },
	},
	{
		name: "REDIS_SENTINEL_USERNAME", field: "Sentinel.Username", kind: kindText, file: true, beside: fills,
		help: "User for the Sentinels themselves.",
		ref:  func(c *Config) any { return &c.Sentinel.Username },
	},
	{
		name: "REDIS_SENTINEL_PASSWORD", field: "Sentinel.Password", kind: kindText, secret: true, file: true, beside: fills,
		help: "Password for the Sentinels themselves; that of the data nodes is never sent to them.",
		ref:  func(c *Config) any { return (*string)(&c.Sentinel.Password) },
	},
	{
		name: "REDIS_SENTINEL_SOCKET_TIMEOUT", field: "Sentinel.SocketTimeout", kind: kindDuration, def: defaultSentinelTimeout, min: minTimeout, max: maxTimeout,
		help: "How long each step with one Sentinel may take: the dial, TLS, the password, the commands. It is doubled after each failure, up to `REDIS_CONNECT_TIMEOUT`, until the master is found.",
		ref:  func(c *Config) any { return &c.Sentinel.SocketTimeout },
	},
	{
		name: "REDIS_SENTINEL_USE_SSL", field: "Sentinel.UseTLS", kind: kindBool, note: "`REDIS_USE_SSL`",
		help: "Encrypts the connections to the Sentinels, with the same files.",
		ref:  func(c *Config) any { return &c.Sentinel.UseTLS },
	},

	{
		name: "REDIS_USE_CLUSTERS", field: "Cluster.Enabled", kind: kindBool, def: false, beside: ignored,
		help: "Speaks to a Redis Cluster.",
		ref:  func(c *Config) any { return &c.Cluster.Enabled },
	},
	{
		name: "REDIS_CLUSTERS", field: "Cluster.Addresses", kind: kindList, beside: ignored,
		help: "Nodes to begin with, at least one; the others are found. The port defaults to 6379.",
		ref:  func(c *Config) any { return &c.Cluster.Addresses },
	},
	{
		name: "REDIS_CLUSTERS_PASSWORD", field: "Cluster.Password", kind: kindText, note: "`REDIS_PASSWORD`", secret: true, file: true, beside: fills,
		help: "Password of the nodes.",
		ref:  func(c *Config) any { return (*string)(&c.Cluster.Password) },
	},

	{
		name: "REDIS_READ_REPLICAS", field: "ReadReplicas", kind: kindBool, def: false,
		help: "Opens connections to replicas, with Sentinel or Cluster, for reads that may be a little old.",
		ref:  func(c *Config) any { return &c.ReadReplicas },
	},
	{
		name: "REDIS_MAX_CONNECTIONS", field: "MaxConnections", kind: kindNumber, def: DefaultMaxConnections, min: minConnections, max: 10_000,
		help: "Most connections that are open to one data node, those for pub/sub and transactions included.",
		ref:  func(c *Config) any { return &c.MaxConnections },
	},
	{
		name: "REDIS_COMMAND_TIMEOUT", field: "CommandTimeout", kind: kindDuration, def: DefaultCommandTimeout, min: minTimeout, max: maxTimeout,
		help: "Longest that a call may take, unless its caller's deadline is sooner.",
		ref:  func(c *Config) any { return &c.CommandTimeout },
	},
	{
		name: "REDIS_CONNECT_TIMEOUT", field: "ConnectTimeout", kind: kindDuration, def: DefaultConnectTimeout, min: minTimeout, max: maxTimeout,
		help: "Longest that one attempt to connect may take; in production also how long the start waits for Redis.",
		ref:  func(c *Config) any { return &c.ConnectTimeout },
	},
	{
		name: "REDIS_MAX_VALUE_SIZE", field: "MaxValueSize", kind: kindBytes, def: DefaultMaxValueSize, min: 1, max: maxBytes,
		help: "Largest command that is sent, all its arguments together; a larger one is refused.",
		ref:  func(c *Config) any { return &c.MaxValueSize },
	},
	{
		name: "REDIS_BULK_THRESHOLD", field: "BulkThreshold", kind: kindBytes, def: DefaultBulkThreshold, min: 1, max: maxBytes,
		help: "Size from which a command travels on a connection of its own. At most `REDIS_MAX_VALUE_SIZE`.",
		ref:  func(c *Config) any { return &c.BulkThreshold },
	},
	{
		name: "REDIS_CLIENT_NAME", field: "ClientName", kind: kindText, note: "the program's name",
		help: "Name that `CLIENT LIST` shows: printable ASCII without blanks, at most 128 characters.",
		ref:  func(c *Config) any { return &c.ClientName },
	},

	{
		name: envDeploy, field: "DeployEnv", kind: kindDeploy, def: Development,
		help: "In production a failed first connection stops the start; in development the application starts without Redis. Never prefixed.",
		ref:  func(c *Config) any { return &c.DeployEnv },
	},
}

// settingByField finds the row of a field of Config.
var settingByField = func() map[string]setting {
	m := make(map[string]setting, len(settings))
	for _, s := range settings {
		if s.field != "" {
			m[s.field] = s
		}
	}
	return m
}()

// envName is the name in the environment.
func (s setting) envName(prefix string) string {
	if s.name == envDeploy {
		return s.name
	}
	return prefix + s.name
}

// parse writes raw, which is not empty, into its field. The error says what
// is wrong and does not repeat raw.
func (s setting) parse(c *Config, raw string) error {
	if !s.secret {
		raw = strings.TrimSpace(raw)
	}
	switch to := s.ref(c).(type) {
	case *string:
		if s.kind == kindDeploy {
			raw = strings.ToUpper(raw)
			if raw != Development && raw != Production {
				return errors.New("it is neither " + Development + " nor " + Production)
			}
		}
		*to = raw
	case *int:
		n, err := envvalue.Int(raw, int(s.min), int(s.max))
		if err != nil {
			return err
		}
		*to = n
	case *bool:
		b, err := envvalue.Bool(raw)
		if err != nil {
			return err
		}
		*to = b
	case **bool:
		b, err := envvalue.Bool(raw)
		if err != nil {
			return err
		}
		*to = &b
	case *time.Duration:
		d, err := envvalue.Duration(raw, time.Duration(s.min), time.Duration(s.max))
		if err != nil {
			return err
		}
		*to = d
	case *[]string:
		*to = envvalue.List(raw)
	}
	return nil
}

func (s setting) inRange(n int64) bool { return n >= s.min && n <= s.max }

// fix says what a good value looks like.
func (s setting) fix() string {
	switch s.kind {
	case kindDeploy:
		return "set " + Development + " or " + Production
	case kindBool:
		return "set true or false"
	case kindNumber:
		return fmt.Sprintf("set a whole number from %d to %d", s.min, s.max)
	case kindBytes:
		return fmt.Sprintf("set a number of bytes from %d to %d", s.min, s.max)
	case kindDuration:
		return "set seconds (0.1) or a duration (100ms), from 1ms to 1h"
	}
	return ""
}

// fill gives an empty field its default.
func (s setting) fill(c *Config) {
	switch to := s.ref(c).(type) {
	case *string:
		if def, ok := s.def.(string); ok && *to == "" {
			*to = def
		}
	case *int:
		if def, ok := s.def.(int); ok && *to == 0 {
			*to = def
		}
	case *time.Duration:
		if def, ok := s.def.(time.Duration); ok && *to == 0 {
			*to = def
		}
	}
}

// text is the value of the field as an error or a log may show it; empty for
// the zero value.
func (s setting) text(c *Config) string {
	switch v := s.ref(c).(type) {
	case *string:
		if *v != "" && s.secret {
			return hidden
		}
		return shown(*v)
	case *int:
		if *v != 0 {
			return strconv.Itoa(*v)
		}
	case *bool:
		if *v {
			return "true"
		}
	case **bool:
		if *v != nil {
			return strconv.FormatBool(**v)
		}
	case *time.Duration:
		if *v != 0 {
			return v.String()
		}
	case *[]string:
		items := make([]string, len(*v))
		for i, item := range *v {
			items[i] = shown(item)
		}
		return clip(strings.Join(items, ","))
	}
	return ""
}
