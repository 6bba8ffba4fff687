package madcrow

import (
	"crypto/tls"
	"net"
	"strconv"
)

func (c Config) validate() (Config, error) {
	if c.Host == "" {
		c.Host = DefaultHost
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.CommandTimeout == 0 {
		c.CommandTimeout = DefaultCommandTimeout
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = DefaultConnectTimeout
	}
	if c.MaxValueSize == 0 {
		c.MaxValueSize = DefaultMaxValueSize
	}
	if c.BulkThreshold == 0 {
		c.BulkThreshold = DefaultBulkThreshold
	}
	return c, nil
}
func (c Config) redacted() Config { return c }
func (c Config) tlsConfig(name string) (*tls.Config, error) {
	if !c.TLS.Enabled {
		return nil, nil
	}
	return &tls.Config{ServerName: name}, nil
}
func (c Config) address() string {
	if c.Socket != "" {
		return c.Socket
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}
func (c Config) mode() string {
	if c.Embedded {
		return "embedded"
	}
	return "standalone"
}
