package madcrow

import (
	"context"
	"net"
	"time"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// What the engine gets of a Config: each layer knows what it needs, and no more.

func (c Config) topologyConfig(listeners *conn.Listeners, changed func()) topology.Config {
	t := topology.Config{Node: c.nodeConfig(listeners), ReadReplicas: c.ReadReplicas, Changed: changed}
	switch {
	case c.Cluster.Enabled:
		t.Seeds = c.Cluster.Addresses
		t.MapClient = c.respConfig(false)
	case c.Sentinel.Enabled:
		t.Sentinel = c.sentinelConfig()
	}
	return t
}

func (c Config) sentinelConfig() *topology.SentinelConfig {
	return &topology.SentinelConfig{
		Client: c.respConfig(true), Log: c.Logger,
		Addresses: c.Sentinel.Addresses, ServiceName: c.Sentinel.ServiceName,
		SocketTimeout: c.Sentinel.SocketTimeout, ConnectTimeout: c.ConnectTimeout,
		ReadReplicas: c.ReadReplicas, OwnDialer: c.Dialer != nil,
	}
}

func (c Config) nodeConfig(listeners *conn.Listeners) node.Config {
	return node.Config{
		Conn: c.connConfig(listeners), Address: c.address(), BulkThreshold: c.BulkThreshold,
		ByName: !c.Sentinel.Enabled && !c.Cluster.Enabled && !c.Embedded && c.Socket == "",
	}
}

func (c Config) connConfig(listeners *conn.Listeners) conn.Config {
	if c.Cluster.Enabled {
		c.Password = c.Cluster.Password
	}
	out := conn.Config{
		Log: c.Logger, Network: "tcp", Dial: c.dialer(), ExplainTLS: c.files.Explain,
		Username: c.Username, Password: string(c.Password), DB: c.DB, ClientName: c.ClientName,
		KeyPrefix: c.KeyPrefix, Embedded: c.Embedded,
		ConnectTimeout: c.ConnectTimeout, CommandTimeout: c.CommandTimeout, MaxConnections: c.MaxConnections,
		Listeners: listeners,
	}
	if c.Socket != "" {
		out.Network = "unix"
	}
	if c.TLS.Enabled {
		out.TLS = c.files.TLS
	}
	if c.files.HasSecrets() {
		out.Reread = func() (user, password string) { return c.files.Credentials(false) }
	}
	if c.Credentials != nil {
		out.Fetch = func(ctx context.Context, addr string) (conn.Credentials, error) {
			got, err := c.Credentials(ctx, CredentialsRequest{Address: addr})
			return got.narrow(), err
		}
	}
	if rec := c.Recorder; rec != nil {
		out.OnDial = func(ctx context.Context, addr string, took time.Duration, err error) {
			rec.Dial(ctx, Dial{Address: addr, Duration: took, Err: err})
		}
	}
	return out
}

// respConfig is that of the client that asks data nodes, or Sentinels.
func (c Config) respConfig(sentinel bool) conn.RESPConfig {
	if c.Cluster.Enabled {
		c.Password = c.Cluster.Password
	}
	out := conn.RESPConfig{
		Dial: c.dialer(), ExplainTLS: c.files.Explain, Timeout: c.ConnectTimeout,
		Credentials: func() (user, password string) { return c.files.Credentials(sentinel) },
		Hint:        "REDIS_USERNAME and REDIS_PASSWORD, or REDIS_CLUSTERS_PASSWORD",
	}
	useTLS, addrs := c.TLS.Enabled, c.Cluster.Addresses
	if sentinel {
		out.Hint = "REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"
		useTLS, addrs = c.values().EncryptsSentinels(), c.Sentinel.Addresses
	}
	if useTLS {
		out.TLS = c.files.TLS
	}
	if c.Credentials != nil {
		out.Hint = "what Config.Credentials returns"
		out.Fetch = func(ctx context.Context) (conn.Credentials, error) {
			got, err := c.Credentials(ctx, CredentialsRequest{Address: addrs[0], Sentinel: sentinel})
			return got.narrow(), err
		}
	}
	return out
}

func (c Config) dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.Dialer != nil {
		return c.Dialer
	}
	return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
}

// narrow are c as a connection uses them.
func (c Credentials) narrow() conn.Credentials {
	return conn.Credentials{Username: c.Username, Password: string(c.Password), RefreshAfter: c.RefreshAfter}
}
