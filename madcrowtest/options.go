package madcrowtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Option changes how [StartRedis], [StartSentinel] and [StartCluster] start
// servers. Of several servers it changes all that hold data, unless it says
// otherwise.
type Option func(*settings)

type user struct {
	name, password string
	rules          []string
}

type settings struct {
	port       int
	password   string // of the default user
	sentinelPW string
	users      []user
	tls        bool
	mutualTLS  bool
	certExpiry time.Duration // from now; negative: in the past
	socket     bool
	args       []string
}

// WithPassword protects the default user: connections must authenticate with
// pw.
func WithPassword(pw string) Option {
	return func(s *settings) { s.password = pw }
}

// WithSentinelPassword protects the Sentinels of [StartSentinel]: connections
// to them must authenticate with pw. WithPassword is for the servers that hold
// data only.
func WithSentinelPassword(pw string) Option {
	return func(s *settings) { s.sentinelPW = pw }
}

// WithUser adds an ACL user who may do what rules say, in the words of ACL
// SETUSER: "~app:*", "+@all", "-flushall". Without rules the user may do
// everything. The default user gets a password that only [Server.Do] knows, so
// no client gets in without a name; [Server.Config] holds the first user that
// was added.
func WithUser(name, pw string, rules ...string) Option {
	return func(s *settings) {
		if len(rules) == 0 {
			rules = []string{"~*", "&*", "+@all"}
		}
		s.users = append(s.users, user{name, pw, rules})
	}
}

// WithTLS serves TLS only, with a certificate for 127.0.0.1, ::1 and localhost
// from an authority made for this server; the plain port is off. Servers that
// belong together have one authority, and TLS between them, too, Sentinels
// included.
func WithTLS() Option {
	return func(s *settings) { s.tls = true }
}

// WithMutualTLS is WithTLS, and clients must show a certificate of the same
// authority: [Server.Config] holds one.
func WithMutualTLS() Option {
	return func(s *settings) { s.tls, s.mutualTLS = true, true }
}

// WithExpiredTLS is WithTLS with a certificate that ran out an hour ago, for
// tests of what a client says to that.
func WithExpiredTLS() Option {
	return func(s *settings) { s.tls, s.certExpiry = true, -time.Hour }
}

// WithUnixSocket serves a Unix socket only; every TCP port is off. It excludes
// WithTLS and WithPort.
func WithUnixSocket() Option {
	return func(s *settings) { s.socket = true }
}

// WithPort listens on this port of 127.0.0.1, usually from [FreePort], so that
// a server can appear later where a client already looks for it. Defaults to a
// free port.
func WithPort(port int) Option {
	return func(s *settings) { s.port = port }
}

// WithArgs adds arguments to the command line of the server, which win over
// all other settings: WithArgs("--maxmemory", "1mb").
func WithArgs(args ...string) Option {
	return func(s *settings) { s.args = append(s.args, args...) }
}

// newSettings applies the options and refuses those that exclude one another.
func newSettings(t testing.TB, opts []Option) settings {
	t.Helper()
	s := applyOptions(opts)
	if s.sentinelPW != "" {
		t.Fatal("madcrowtest: WithSentinelPassword is for StartSentinel: there are no Sentinels here")
	}
	if s.socket && (s.tls || s.port != 0) {
		t.Fatal("madcrowtest: WithUnixSocket excludes WithTLS and WithPort: a server with a Unix socket has no port")
	}
	return s
}

// newSetSettings is newSettings for several servers that belong together.
func newSetSettings(t testing.TB, opts []Option) settings {
	t.Helper()
	s := applyOptions(opts)
	if s.socket || s.port != 0 || s.certExpiry < 0 {
		t.Fatal("madcrowtest: WithUnixSocket, WithPort and WithExpiredTLS are for StartRedis: servers that belong together could not reach one another")
	}
	return s
}

func applyOptions(opts []Option) settings {
	s := settings{certExpiry: 24 * time.Hour}
	for _, o := range opts {
		o(&s)
	}
	if len(s.users) > 0 && s.password == "" {
		s.password = randomText()
	}
	return s
}

// file is the configuration file of a server: passwords stand in it and not on
// the command line, where every user of the machine could read them.
func (s *Server) file() string {
	var b strings.Builder
	line := func(words ...string) {
		for i, w := range words {
			if i > 0 {
				b.WriteByte(' ')
				w = quote(w)
			}
			b.WriteString(w)
		}
		b.WriteByte('\n')
	}
	line("bind", "127.0.0.1")
	line("dir", s.dir)
	if s.role != sentinelRole {
		line("save", "")
		line("appendonly", "no")
	}
	switch {
	case s.set.socket:
		line("port", "0")
		line("unixsocket", s.socket)
		line("unixsocketperm", "700")
	case s.set.tls:
		line("port", "0")
		line("tls-port", fmt.Sprint(s.port))
		line("tls-cert-file", s.tls.certFile)
		line("tls-key-file", s.tls.keyFile)
		line("tls-ca-cert-file", s.tls.caFile)
		auth := "no"
		if s.set.mutualTLS {
			auth = "yes"
		}
		line("tls-auth-clients", auth)
	default:
		line("port", fmt.Sprint(s.port))
	}
	if s.set.password != "" {
		line("requirepass", s.set.password)
	}
	for _, u := range s.set.users {
		words := []string{"user", u.name, "on", ">" + u.password}
		for _, rule := range u.rules {
			// Before Redis 6.2 every user may use every channel.
			if rule != "&*" || !programVersion(s.binary).less(redisVersion{6, 2}) {
				words = append(words, rule)
			}
		}
		line(words...)
	}
	if s.lines != nil {
		for _, words := range s.lines() {
			line(words...)
		}
	}
	return b.String()
}

// quote writes w as one word of a configuration file.
func quote(w string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(w) {
		switch c := w[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
