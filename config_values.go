package madcrow

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow/internal/settings"
)

// values are the settings of c, for the packages below this one.
func (c Config) values() settings.Values {
	return settings.Values{
		Host: c.Host, Port: c.Port, Socket: c.Socket,
		Username: c.Username, Password: string(c.Password), DB: c.DB,
		TLS: settings.TLS(c.TLS),
		Sentinel: settings.Sentinel{
			Enabled: c.Sentinel.Enabled, Addresses: c.Sentinel.Addresses, ServiceName: c.Sentinel.ServiceName,
			Username: c.Sentinel.Username, Password: string(c.Sentinel.Password),
			SocketTimeout: c.Sentinel.SocketTimeout, UseTLS: c.Sentinel.UseTLS,
		},
		Cluster:      settings.Cluster{Enabled: c.Cluster.Enabled, Addresses: c.Cluster.Addresses, Password: string(c.Cluster.Password)},
		ReadReplicas: c.ReadReplicas, MaxConnections: c.MaxConnections,
		CommandTimeout: c.CommandTimeout, ConnectTimeout: c.ConnectTimeout,
		MaxValueSize: c.MaxValueSize, BulkThreshold: c.BulkThreshold,
		KeyPrefix: c.KeyPrefix, Require: c.Require, DeployEnv: c.DeployEnv, ClientName: c.ClientName,
		HasCredentials: c.Credentials != nil, Embedded: c.Embedded,
		Warnings: c.Warnings, Origin: c.origin,
	}
}

// with returns c with its settings replaced by v. What no setting says, the
// functions, stays.
func (c Config) with(v settings.Values) Config {
	c.Host, c.Port, c.Socket = v.Host, v.Port, v.Socket
	c.Username, c.Password, c.DB = v.Username, Secret(v.Password), v.DB
	c.TLS = TLS(v.TLS)
	c.Sentinel = Sentinel{
		Enabled: v.Sentinel.Enabled, Addresses: v.Sentinel.Addresses, ServiceName: v.Sentinel.ServiceName,
		Username: v.Sentinel.Username, Password: Secret(v.Sentinel.Password),
		SocketTimeout: v.Sentinel.SocketTimeout, UseTLS: v.Sentinel.UseTLS,
	}
	c.Cluster = Cluster{Enabled: v.Cluster.Enabled, Addresses: v.Cluster.Addresses, Password: Secret(v.Cluster.Password)}
	c.ReadReplicas, c.MaxConnections = v.ReadReplicas, v.MaxConnections
	c.CommandTimeout, c.ConnectTimeout = v.CommandTimeout, v.ConnectTimeout
	c.MaxValueSize, c.BulkThreshold = v.MaxValueSize, v.BulkThreshold
	c.KeyPrefix, c.Require, c.DeployEnv, c.ClientName = v.KeyPrefix, v.Require, v.DeployEnv, v.ClientName
	c.Embedded, c.Warnings, c.origin = v.Embedded, v.Warnings, v.Origin
	return c
}

// configOf is the Config of settings that were read, or the one error of them.
func configOf(v settings.Values, err error) (Config, error) {
	if err != nil {
		return Config{}, configError(err)
	}
	return Config{}.with(v), nil
}

// validate returns c with its defaults filled in, or one error that lists
// every problem. It changes nothing that c points to. Validating the result
// again gives the same.
func (c Config) validate() (Config, error) {
	v, err := c.values().Validate()
	if err != nil {
		return Config{}, configError(err)
	}
	return c.with(v), nil
}

// redacted returns a copy that holds no secret and shares nothing that its
// receiver could change: passwords are "***", and what could give one away, the
// callback for credentials and the TLS configuration, is gone.
func (c Config) redacted() Config {
	for _, to := range []*Secret{&c.Password, &c.Sentinel.Password, &c.Cluster.Password} {
		*to = Secret(to.String())
	}
	c.Credentials, c.files, c.TLS.Config = nil, nil, nil
	c.origin = c.origin.WithoutSecrets()
	c.Sentinel.Addresses = slices.Clone(c.Sentinel.Addresses)
	c.Cluster.Addresses = slices.Clone(c.Cluster.Addresses)
	c.Warnings = slices.Clone(c.Warnings)
	if c.Sentinel.UseTLS != nil {
		on := *c.Sentinel.UseTLS
		c.Sentinel.UseTLS = &on
	}
	return c
}

// attrs are the fields that are set, without secrets.
func (c Config) attrs() []slog.Attr {
	attrs := c.values().Attrs()
	if c.Dialer != nil {
		attrs = append(attrs, slog.Bool("Dialer", true))
	}
	if c.Logger != nil {
		attrs = append(attrs, slog.Bool("Logger", true))
	}
	if c.Recorder != nil {
		attrs = append(attrs, slog.Bool("Recorder", true))
	}
	return attrs
}

// String shows the fields that are set; secrets are "***", also one that went
// to the wrong place, such as a whole URL as the host.
func (c Config) String() string { return settings.Text("madcrow.Config", c.attrs()) }

// Format is String for every verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON shows the fields that are set; secrets are "***". It is for
// logs, and nothing reads it back.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(fieldsOf(c.attrs())) }

// LogValue shows a logger the fields that are set; secrets are "***".
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.attrs()...) }

func fieldsOf(attrs []slog.Attr) map[string]any {
	fields := make(map[string]any, len(attrs))
	for _, a := range attrs {
		fields[a.Key] = a.Value.Any()
	}
	return fields
}

// section is one nested struct of a Config, as it is shown alone: like in the
// Config, where a secret in the wrong place, as in an address, is hidden too.
type section struct {
	name string
	of   Config
}

func (s section) attrs() (attrs []slog.Attr) {
	for _, a := range s.of.attrs() {
		if key, ok := strings.CutPrefix(a.Key, s.name+"."); ok {
			attrs = append(attrs, slog.Attr{Key: key, Value: a.Value})
		}
	}
	return attrs
}

func (s section) String() string { return settings.Text("madcrow."+s.name, s.attrs()) }

func (s Sentinel) section() section { return section{"Sentinel", Config{Sentinel: s}} }
func (c Cluster) section() section  { return section{"Cluster", Config{Cluster: c}} }

// String shows the fields that are set; secrets are "***".
func (s Sentinel) String() string { return s.section().String() }

// Format is String for every verb.
func (s Sentinel) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON shows the fields that are set; secrets are "***". It is for
// logs, and nothing reads it back.
func (s Sentinel) MarshalJSON() ([]byte, error) { return json.Marshal(fieldsOf(s.section().attrs())) }

// LogValue shows a logger the fields that are set; secrets are "***".
func (s Sentinel) LogValue() slog.Value { return slog.GroupValue(s.section().attrs()...) }

// String shows the fields that are set; secrets are "***".
func (c Cluster) String() string { return c.section().String() }

// Format is String for every verb.
func (c Cluster) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON shows the fields that are set; secrets are "***". It is for
// logs, and nothing reads it back.
func (c Cluster) MarshalJSON() ([]byte, error) { return json.Marshal(fieldsOf(c.section().attrs())) }

// LogValue shows a logger the fields that are set; secrets are "***".
func (c Cluster) LogValue() slog.Value { return slog.GroupValue(c.section().attrs()...) }
