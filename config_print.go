package madcrow

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// redacted returns a copy that holds no secret and shares nothing that its
// receiver could change: passwords are "***", and what could give one away, the
// callback for credentials and the TLS configuration, is gone.
func (c Config) redacted() Config {
	for _, to := range []*Secret{&c.Password, &c.Sentinel.Password, &c.Cluster.Password} {
		*to = Secret(to.String())
	}
	c.Credentials = nil
	c.files = nil
	if c.origin != nil {
		o := *c.origin
		o.secrets = nil
		c.origin = &o
	}
	c.TLS.Config = nil
	c.Sentinel.Addresses = slices.Clone(c.Sentinel.Addresses)
	c.Cluster.Addresses = slices.Clone(c.Cluster.Addresses)
	c.Warnings = slices.Clone(c.Warnings)
	if c.Sentinel.UseTLS != nil {
		on := *c.Sentinel.UseTLS
		c.Sentinel.UseTLS = &on
	}
	return c
}

func (s setting) refString(c *Config) (*string, bool) {
	if s.ref == nil {
		return nil, false
	}
	to, ok := s.ref(c).(*string)
	return to, ok
}

// attrs are the fields that are set, without secrets.
func (c Config) attrs() []slog.Attr {
	var attrs []slog.Attr
	add := func(name, text string) {
		if text != "" {
			attrs = append(attrs, slog.String(name, text))
		}
	}
	for _, s := range settings {
		if s.field != "" {
			add(s.field, s.text(&c))
		}
		if s.field == "Port" {
			add("Socket", shown(c.Socket))
		}
	}
	for _, o := range []struct {
		name string
		set  bool
	}{
		{"TLS.Config", c.TLS.Config != nil},
		{"Require", c.Require},
		{"Embedded", c.Embedded},
		{"Credentials", c.Credentials != nil},
		{"Dialer", c.Dialer != nil},
		{"Logger", c.Logger != nil},
		{"Recorder", c.Recorder != nil},
	} {
		if o.set {
			attrs = append(attrs, slog.Bool(o.name, true))
		}
	}
	return attrs
}

// String shows the fields that are set; secrets are "***".
func (c Config) String() string {
	var b strings.Builder
	b.WriteString("madcrow.Config{")
	for i, a := range c.attrs() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Key + ":" + a.Value.String())
	}
	b.WriteByte('}')
	return b.String()
}

// Format is String for every verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON shows the fields that are set; secrets are "***". It is for
// logs, and nothing reads it back.
func (c Config) MarshalJSON() ([]byte, error) {
	m := map[string]any{}
	for _, a := range c.attrs() {
		m[a.Key] = a.Value.Any()
	}
	return json.Marshal(m)
}

// LogValue shows a logger the fields that are set; secrets are "***".
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.attrs()...) }
