// Package settings reads and checks the configuration of the client: the table
// of all settings, environment variables, URLs, addresses, TLS files, and what
// of them may be shown. It knows no connection, and nothing of the package
// that shows a Config to users.
package settings

import (
	"crypto/tls"
	"fmt"
	"io"
	"time"
)

// Values are the settings of one Redis. madcrow.Config has the same fields and
// documents them.
type Values struct {
	Host   string
	Port   int
	Socket string

	Username string
	Password string
	DB       int

	TLS      TLS
	Sentinel Sentinel
	Cluster  Cluster

	ReadReplicas   bool
	MaxConnections int
	CommandTimeout time.Duration
	ConnectTimeout time.Duration
	MaxValueSize   int
	BulkThreshold  int

	KeyPrefix  string
	Require    bool
	DeployEnv  string
	ClientName string

	// HasCredentials says that a function supplies users and passwords.
	HasCredentials bool
	Embedded       bool

	// Warnings are findings that are no errors. They hold no secret.
	Warnings []string
	// Origin says who wrote which field. Nil: a program did.
	Origin *Origin
}

// TLS says how a connection is encrypted and what is verified.
type TLS struct {
	Enabled            bool
	CAFile             string
	CertFile           string
	KeyFile            string
	ServerName         string
	InsecureSkipVerify bool
	Config             *tls.Config
}

// Sentinel says which Sentinels to ask, and for which master.
type Sentinel struct {
	Enabled       bool
	Addresses     []string
	ServiceName   string
	Username      string
	Password      string
	SocketTimeout time.Duration
	UseTLS        *bool
}

// Cluster says where to find a Redis Cluster.
type Cluster struct {
	Enabled   bool
	Addresses []string
	Password  string
}

// Defaults of Values. A zero field takes its default.
const (
	DefaultHost            = "localhost"
	DefaultPort            = 6379
	DefaultSentinelPort    = 26379
	DefaultMaxConnections  = 20
	DefaultCommandTimeout  = 500 * time.Millisecond
	DefaultConnectTimeout  = 5 * time.Second
	DefaultSentinelTimeout = 100 * time.Millisecond
	DefaultMaxValueSize    = 64 << 20
	DefaultBulkThreshold   = 64 << 10
)

// The values of DeployEnv.
const (
	Development = "DEVELOPMENT"
	Production  = "PRODUCTION"
)

// EncryptsSentinels says whether connections to Sentinels are encrypted.
func (v Values) EncryptsSentinels() bool {
	if v.Sentinel.UseTLS != nil {
		return *v.Sentinel.UseTLS
	}
	return v.TLS.Enabled
}

// usesHost says whether Host and Port count.
func (v *Values) usesHost() bool {
	return v.Socket == "" && !v.Sentinel.Enabled && !v.Cluster.Enabled
}

// Format writes what Attrs says, whatever the verb: no secret is printed.
func (v Values) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }
