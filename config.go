package madcrow

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/madcrow-go/madcrow/internal/reread"
	"github.com/madcrow-go/madcrow/internal/settings"
)

// Defaults of [Config]. A zero field takes its default.
const (
	DefaultHost           = "localhost"
	DefaultPort           = 6379
	DefaultMaxConnections = 20
	DefaultCommandTimeout = 500 * time.Millisecond
	DefaultConnectTimeout = 5 * time.Second
	DefaultMaxValueSize   = 64 << 20
	DefaultBulkThreshold  = 64 << 10
)

// The values of [Config.DeployEnv].
const (
	Development = "DEVELOPMENT"
	Production  = "PRODUCTION"
)

// Config says which Redis, and how to speak to it. The zero value is a Redis
// on localhost:6379 without a password. [ConfigFromEnv] fills it from the
// environment, [ParseURL] from a URL; [Open] validates it, and reports every
// problem in one [ConfigError]. Printing or logging a Config shows no secret.
type Config struct {
	// Host of a standalone Redis: a name or an IP address, without a port. Not
	// used with Socket, Sentinel or Cluster. Defaults to "localhost".
	Host string
	// Port of a standalone Redis, 1 to 65535. Not used with Socket, Sentinel
	// or Cluster. Defaults to 6379.
	Port int
	// Socket is the path of a Unix socket, at most 107 bytes; it stands in the
	// place of Host and Port. It excludes TLS, Sentinel and Cluster. Defaults
	// to none.
	Socket string

	// Username of an ACL user. Defaults to Redis' own "default" user.
	Username string
	// Password of that user. Defaults to none.
	Password Secret
	// DB is the number of the database, 0 or more; it must be 0 with Cluster.
	// Defaults to 0.
	DB int

	// TLS encrypts the connection. Defaults to off; when on, the server's
	// certificate and name are verified.
	TLS TLS
	// Sentinel finds the master through Redis Sentinel. Defaults to off.
	Sentinel Sentinel
	// Cluster speaks to a Redis Cluster. Defaults to off.
	Cluster Cluster

	// ReadReplicas opens connections to one replica, with Sentinel, or to one
	// of each master, with Cluster, for reads with [Replica]. They count apart
	// from those to masters. Defaults to false.
	ReadReplicas bool

	// MaxConnections bounds the open connections to each data node, those for
	// pub/sub and transactions included, Sentinels and health probes not. From
	// 3 to 10,000. Defaults to 20.
	MaxConnections int
	// CommandTimeout is the longest a call may take, unless the caller's
	// context ends sooner. From 1 ms to 1 h. Defaults to 500 ms.
	CommandTimeout time.Duration
	// ConnectTimeout is how long one attempt to connect may take, and how long
	// Open waits for the first connection when Require is set. From 1 ms to
	// 1 h. Defaults to 5 s.
	ConnectTimeout time.Duration
	// MaxValueSize is the largest command, in bytes of all its arguments, that
	// is sent; a larger one is refused with ErrTooLarge. From 1 to 1 GiB.
	// Defaults to 64 MiB.
	MaxValueSize int
	// BulkThreshold is the size, in bytes of all its arguments, from which a
	// command travels on a connection of its own, so that small calls do not
	// wait behind it. From 1 to MaxValueSize. Defaults to 64 KiB, or to
	// MaxValueSize where that is less.
	BulkThreshold int

	// KeyPrefix stands before every key that the library builds: at most 128
	// bytes of UTF-8 without control characters and without braces, which
	// would put every key into one slot of a cluster. Defaults to none, so
	// that the data of other programs is found.
	KeyPrefix string
	// Require makes Open wait for the first connection, up to ConnectTimeout,
	// and fail without it. ConfigFromEnv sets it when DEPLOY_ENV is
	// PRODUCTION. Defaults to false: Open returns at once and the connection
	// follows.
	Require bool
	// DeployEnv is Development or Production, as DEPLOY_ENV said. It is there
	// to be read; ConfigFromEnv derives Require from it, and an Embedded Redis
	// is refused in production. Defaults to Development.
	DeployEnv string
	// ClientName is shown by CLIENT LIST: at most 128 printable ASCII
	// characters without blanks. Defaults to the program's name.
	ClientName string

	// Credentials, when set, is asked for the user and password of every new
	// connection, to data nodes and to Sentinels, and again when they expire:
	// for tokens that rotate. It stands in the place of every Username and
	// Password of this struct, which must be empty then. It must return within
	// ConnectTimeout and be safe for concurrent use. Defaults to none.
	Credentials func(context.Context, CredentialsRequest) (Credentials, error)
	// Dialer opens the raw connection, below TLS. network is "tcp" or "unix".
	// It must end when ctx does.
	// Defaults to a net.Dialer.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// Embedded marks a Redis that lives in this process, for development
	// only: State and health say so. Set by contrib/embedded.
	Embedded bool

	// Logger receives changes of state and warnings; no key, value or password
	// is ever logged. Defaults to no log.
	Logger *slog.Logger
	// Recorder observes operations, dials and state changes. Defaults to none.
	Recorder Recorder

	// Warnings are findings that are no errors; Open logs them. They hold no
	// secret. ConfigFromEnv and ParseURL write them.
	Warnings []string

	// origin remembers who wrote which field, so that an error can name the
	// setting as its author knows it. Nil for a literal.
	origin *settings.Origin
	// files are read again for new connections. Open makes them.
	files *reread.Files
}

// TLS says how a connection is encrypted and what is verified.
type TLS struct {
	// Enabled turns TLS 1.2 or later on. The fields below without it are an
	// error, for their author believes that the connection is encrypted.
	// Defaults to false.
	Enabled bool
	// CAFile is a PEM file with the authorities to trust. Defaults to those of
	// the system.
	CAFile string
	// CertFile and KeyFile are the client's certificate and key, PEM, both or
	// neither. Default to none.
	CertFile string
	KeyFile  string
	// ServerName is the name that the certificate must carry. Defaults to the
	// host that is dialled.
	ServerName string
	// InsecureSkipVerify accepts any certificate: anybody on the way can read
	// and change everything. Defaults to false.
	InsecureSkipVerify bool
	// Config, when set, is used as it is (an empty ServerName follows the host
	// that is dialled), and the fields above but Enabled must be empty.
	// Defaults to none.
	Config *tls.Config
}

// Sentinel says which Sentinels to ask, and for which master.
type Sentinel struct {
	// Enabled finds the master through Sentinels. Defaults to false.
	Enabled bool
	// Addresses are the Sentinels, host or host:port, IPv6 in brackets. At
	// least one. The port defaults to 26379.
	Addresses []string
	// ServiceName is the name of the master that the Sentinels watch.
	// Required.
	ServiceName string
	// Username and Password are for the Sentinels themselves; they are never
	// taken from those of the data nodes. Default to none.
	Username string
	Password Secret
	// SocketTimeout is how long each step with one Sentinel may take: the dial,
	// TLS, the password, the commands. It is doubled after each failure, up to
	// Config.ConnectTimeout, until the master is found. From 1 ms to 1 h.
	// Defaults to 100 ms.
	SocketTimeout time.Duration
	// UseTLS encrypts the connections to the Sentinels. Defaults to
	// Config.TLS.Enabled.
	UseTLS *bool
}

// Cluster says where to find a Redis Cluster.
type Cluster struct {
	// Enabled speaks to a Redis Cluster. Defaults to false.
	Enabled bool
	// Addresses are seed nodes, host or host:port, IPv6 in brackets. At least
	// one. The port defaults to 6379.
	Addresses []string
	// Password of the nodes. Defaults to Config.Password.
	Password Secret
}

// Credentials are what one connection authenticates with.
type Credentials struct {
	Username string
	Password Secret
	// RefreshAfter is when the connection asks for new ones. Zero: never.
	RefreshAfter time.Time
}

// CredentialsRequest says for whom credentials are wanted.
type CredentialsRequest struct {
	// Address of the node, host:port or a socket's path.
	Address string
	// Sentinel is true when the node is a Sentinel and false for a data node.
	Sentinel bool
}
