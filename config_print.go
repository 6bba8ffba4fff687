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
	for _, s := range settings {
		if to, ok := s.refString(&c); ok && s.secret && *to != "" {
			*to = hidden
		}
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

// printAttrs writes name{field:value …}.
func printAttrs(name string, attrs []slog.Attr) string {
	var b strings.Builder
	b.WriteString(name + "{")
	for i, a := range attrs {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Key + ":" + a.Value.String())
	}
	b.WriteByte('}')
	return b.String()
}

// marshalAttrs writes one JSON object, in no order to rely on.
func marshalAttrs(attrs []slog.Attr) ([]byte, error) {
	m := make(map[string]any, len(attrs))
	for _, a := range attrs {
		m[a.Key] = a.Value.Any()
	}
	return json.Marshal(m)
}

// part returns the attributes of one nested struct.
func part(c Config, prefix string) []slog.Attr {
	var attrs []slog.Attr
	for _, a := range c.attrs() {
		if key, ok := strings.CutPrefix(a.Key, prefix); ok {
			attrs = append(attrs, slog.Attr{Key: key, Value: a.Value})
		}
	}
	return attrs
}

// String shows the fields that are set; secrets are "***".
func (c Config) String() string { return printAttrs("madcrow.Config", c.attrs()) }

// GoString is String, so that %#v shows no secret.
func (c Config) GoString() string { return c.String() }

// Format is String for every verb, so that none shows a secret.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON shows the fields that are set; secrets are "***". It is for
// logs, and nothing reads it back.
func (c Config) MarshalJSON() ([]byte, error) { return marshalAttrs(c.attrs()) }

// LogValue shows a logger the fields that are set; secrets are "***".
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.attrs()...) }

// String shows the fields that are set; the password is "***".
func (s Sentinel) String() string {
	return printAttrs("madcrow.Sentinel", part(Config{Sentinel: s}, "Sentinel."))
}

// GoString is String, so that %#v shows no secret.
func (s Sentinel) GoString() string { return s.String() }

// Format is String for every verb, so that none shows a secret.
func (s Sentinel) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON shows the fields that are set; the password is "***". It is for
// logs, and nothing reads it back.
func (s Sentinel) MarshalJSON() ([]byte, error) {
	return marshalAttrs(part(Config{Sentinel: s}, "Sentinel."))
}

// LogValue shows a logger the fields that are set; the password is "***".
func (s Sentinel) LogValue() slog.Value {
	return slog.GroupValue(part(Config{Sentinel: s}, "Sentinel.")...)
}

// String shows the fields that are set; the password is "***".
func (c Cluster) String() string {
	return printAttrs("madcrow.Cluster", part(Config{Cluster: c}, "Cluster."))
}

// GoString is String, so that %#v shows no secret.
func (c Cluster) GoString() string { return c.String() }

// Format is String for every verb, so that none shows a secret.
func (c Cluster) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON shows the fields that are set; the password is "***". It is for
// logs, and nothing reads it back.
func (c Cluster) MarshalJSON() ([]byte, error) {
	return marshalAttrs(part(Config{Cluster: c}, "Cluster."))
}

// LogValue shows a logger the fields that are set; the password is "***".
func (c Cluster) LogValue() slog.Value {
	return slog.GroupValue(part(Config{Cluster: c}, "Cluster.")...)
}

func (c Credentials) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("Username", c.Username)}
	if c.Password != "" {
		attrs = append(attrs, slog.String("Password", hidden))
	}
	if !c.RefreshAfter.IsZero() {
		attrs = append(attrs, slog.Time("RefreshAfter", c.RefreshAfter))
	}
	return attrs
}

// String shows the user and when to refresh; the password is "***".
func (c Credentials) String() string { return printAttrs("madcrow.Credentials", c.attrs()) }

// GoString is String, so that %#v shows no secret.
func (c Credentials) GoString() string { return c.String() }

// Format is String for every verb, so that none shows a secret.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON shows the user and when to refresh; the password is "***". It is for
// logs, and nothing reads it back.
func (c Credentials) MarshalJSON() ([]byte, error) { return marshalAttrs(c.attrs()) }

// LogValue shows a logger the user and when to refresh; the password is "***".
func (c Credentials) LogValue() slog.Value { return slog.GroupValue(c.attrs()...) }
