package settings

import "time"

// setting is one row of the table, from which the environment is read, ranges
// are checked, defaults are filled in, problems are named and docs/settings.md
// is written.
type setting struct {
	name string // in the environment, without a prefix
	path string // of the field in the configuration; empty for REDIS_URL
	field
	note   string    // the default in words, where the field has none
	file   bool      // NAME_FILE may name a file that holds it
	beside besideURL // what it does where REDIS_URL is set
	help   string
}

// besideURL says what a setting does where REDIS_URL is set.
type besideURL uint8

const (
	applies besideURL = iota // the URL cannot say it
	fills                    // it counts where the URL is silent
	ignored                  // the URL says it, or makes it meaningless
)

// The settings that the code names.
const (
	envURL    = "REDIS_URL"
	envDeploy = "DEPLOY_ENV"
)

// table has every setting, in the order of the documentation.
var table = []setting{
	{
		name: envURL, field: field{kind: kindURL, secret: true}, file: true,
		help: "One URL in the place of the settings that it contains; see below.",
	},
	{
		name: "REDIS_HOST", path: "Host", beside: ignored,
		field: textOr(func(v *Values) *string { return &v.Host }, DefaultHost),
		help:  "Name or IP address of a standalone Redis.",
	},
	{
		name: "REDIS_PORT", path: "Port", beside: ignored,
		field: number(func(v *Values) *int { return &v.Port }, DefaultPort, 1, 65535),
		help:  "Its port.",
	},
	{
		name: "REDIS_USERNAME", path: "Username", file: true, beside: fills,
		field: text(func(v *Values) *string { return &v.Username }),
		help:  "ACL user. Without it Redis takes its user `default`.",
	},
	{
		name: "REDIS_PASSWORD", path: "Password", file: true, beside: fills,
		field: secret(func(v *Values) *string { return &v.Password }),
		help:  "Password of that user.",
	},
	{
		name: "REDIS_DB", path: "DB", beside: fills,
		field: number(func(v *Values) *int { return &v.DB }, 0, 0, maxDB),
		help:  "Number of the database. A cluster has only 0.",
	},
	{
		name: "REDIS_KEY_PREFIX", path: "KeyPrefix",
		field: text(func(v *Values) *string { return &v.KeyPrefix }),
		help:  "Stands before every key that the library builds, so that several applications can share one Redis. At most 128 bytes; no braces, no control characters.",
	},

	{
		name: "REDIS_USE_SSL", path: "TLS.Enabled", beside: ignored,
		field: boolean(func(v *Values) *bool { return &v.TLS.Enabled }),
		help:  "Encrypts the connection with TLS 1.2 or later; certificate and host name are verified.",
	},
	{
		name: "REDIS_SSL_CA_FILE", path: "TLS.CAFile", note: "the system's",
		field: file(func(v *Values) *string { return &v.TLS.CAFile }),
		help:  "PEM file with the authorities to trust.",
	},
	{
		name: "REDIS_SSL_CERT_FILE", path: "TLS.CertFile",
		field: file(func(v *Values) *string { return &v.TLS.CertFile }),
		help:  "PEM file with the client's certificate; needs the key.",
	},
	{
		name: "REDIS_SSL_KEY_FILE", path: "TLS.KeyFile",
		field: file(func(v *Values) *string { return &v.TLS.KeyFile }),
		help:  "PEM file with the client's key; needs the certificate.",
	},
	{
		name: "REDIS_SSL_SERVER_NAME", path: "TLS.ServerName", note: "the host dialled",
		field: text(func(v *Values) *string { return &v.TLS.ServerName }),
		help:  "Name that the server's certificate must carry.",
	},
	{
		name: "REDIS_SSL_INSECURE_SKIP_VERIFY", path: "TLS.InsecureSkipVerify",
		field: boolean(func(v *Values) *bool { return &v.TLS.InsecureSkipVerify }),
		help:  "Accepts any certificate, so that anybody on the way can read and change everything. Logged as a warning at every start.",
	},

	{
		name: "REDIS_USE_SENTINEL", path: "Sentinel.Enabled", beside: ignored,
		field: boolean(func(v *Values) *bool { return &v.Sentinel.Enabled }),
		help:  "Finds the master through Redis Sentinel.",
	},
	{
		name: "REDIS_SENTINELS", path: "Sentinel.Addresses", beside: ignored,
		field: addresses(func(v *Values) *[]string { return &v.Sentinel.Addresses }),
		help:  "The Sentinels, at least one. The port defaults to 26379.",
	},
	{
		name: "REDIS_SENTINEL_SERVICE_NAME", path: "Sentinel.ServiceName", beside: fills,
		field: text(func(v *Values) *string { return &v.Sentinel.ServiceName }),
		help:  "Name of the master that the Sentinels watch. Required with Sentinel.",
	},
	{
		name: "REDIS_SENTINEL_USERNAME", path: "Sentinel.Username", file: true, beside: fills,
		field: text(func(v *Values) *string { return &v.Sentinel.Username }),
		help:  "User for the Sentinels themselves.",
	},
	{
		name: "REDIS_SENTINEL_PASSWORD", path: "Sentinel.Password", file: true, beside: fills,
		field: secret(func(v *Values) *string { return &v.Sentinel.Password }),
		help:  "Password for the Sentinels themselves; that of the data nodes is never sent to them.",
	},
	{
		name: "REDIS_SENTINEL_SOCKET_TIMEOUT", path: "Sentinel.SocketTimeout",
		field: duration(func(v *Values) *time.Duration { return &v.Sentinel.SocketTimeout }, DefaultSentinelTimeout),
		help:  "How long each step with one Sentinel may take: the dial, TLS, the password, the commands. It is doubled after each failure, up to `REDIS_CONNECT_TIMEOUT`, until the master is found.",
	},
	{
		name: "REDIS_SENTINEL_USE_SSL", path: "Sentinel.UseTLS", note: "`REDIS_USE_SSL`",
		field: choice(func(v *Values) **bool { return &v.Sentinel.UseTLS }),
		help:  "Encrypts the connections to the Sentinels, with the same files.",
	},

	{
		name: "REDIS_USE_CLUSTERS", path: "Cluster.Enabled", beside: ignored,
		field: boolean(func(v *Values) *bool { return &v.Cluster.Enabled }),
		help:  "Speaks to a Redis Cluster.",
	},
	{
		name: "REDIS_CLUSTERS", path: "Cluster.Addresses", beside: ignored,
		field: addresses(func(v *Values) *[]string { return &v.Cluster.Addresses }),
		help:  "Nodes to begin with, at least one; the others are found. The port defaults to 6379.",
	},
	{
		name: "REDIS_CLUSTERS_PASSWORD", path: "Cluster.Password", note: "`REDIS_PASSWORD`", file: true, beside: fills,
		field: secret(func(v *Values) *string { return &v.Cluster.Password }),
		help:  "Password of the nodes.",
	},

	{
		name: "REDIS_READ_REPLICAS", path: "ReadReplicas",
		field: boolean(func(v *Values) *bool { return &v.ReadReplicas }),
		help:  "Opens connections to replicas, with Sentinel or Cluster, for reads that may be a little old.",
	},
	{
		name: "REDIS_MAX_CONNECTIONS", path: "MaxConnections",
		field: number(func(v *Values) *int { return &v.MaxConnections }, DefaultMaxConnections, minConnections, 10_000),
		help:  "Most connections that are open to one data node, those for pub/sub and transactions included.",
	},
	{
		name: "REDIS_COMMAND_TIMEOUT", path: "CommandTimeout",
		field: duration(func(v *Values) *time.Duration { return &v.CommandTimeout }, DefaultCommandTimeout),
		help:  "Longest that a call may take, unless its caller's deadline is sooner.",
	},
	{
		name: "REDIS_CONNECT_TIMEOUT", path: "ConnectTimeout",
		field: duration(func(v *Values) *time.Duration { return &v.ConnectTimeout }, DefaultConnectTimeout),
		help:  "Longest that one attempt to connect may take; in production also how long the start waits for Redis.",
	},
	{
		name: "REDIS_MAX_VALUE_SIZE", path: "MaxValueSize",
		field: size(func(v *Values) *int { return &v.MaxValueSize }, DefaultMaxValueSize),
		help:  "Largest command that is sent, all its arguments together; a larger one is refused.",
	},
	{
		name: "REDIS_BULK_THRESHOLD", path: "BulkThreshold",
		field: size(func(v *Values) *int { return &v.BulkThreshold }, DefaultBulkThreshold),
		help:  "Size from which a command travels on a connection of its own. At most `REDIS_MAX_VALUE_SIZE`.",
	},
	{
		name: "REDIS_CLIENT_NAME", path: "ClientName", note: "the program's name",
		field: text(func(v *Values) *string { return &v.ClientName }),
		help:  "Name that `CLIENT LIST` shows: printable ASCII without blanks, at most 128 characters.",
	},

	{
		name: envDeploy, path: "DeployEnv",
		field: deployEnv(func(v *Values) *string { return &v.DeployEnv }),
		help:  "In production a failed first connection stops the start; in development the application starts without Redis. Never prefixed.",
	},
}

// byField finds the row of a field.
var byField = func() map[string]setting {
	m := make(map[string]setting, len(table))
	for _, s := range table {
		if s.path != "" {
			m[s.path] = s
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
