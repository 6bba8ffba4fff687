package settings

import (
	"log/slog"
	"strings"
)

// Hidden stands for a secret wherever one would be shown.
const Hidden = "***"

// maxShown bounds, in bytes, what an error repeats of a value.
const maxShown = 120

// shown returns what an error or a log may repeat of a value that is not a
// secret, but may hold one that went to the wrong place: a whole URL as the
// host, or credentials before a host.
func shown(v string) string {
	if strings.Contains(v, "://") {
		return shownURL(v)
	}
	if at := strings.LastIndexByte(v, '@'); at >= 0 {
		v = Hidden + v[at:]
	}
	return clip(v)
}

// clip shortens v to maxShown bytes, and never inside a character.
func clip(v string) string {
	if len(v) <= maxShown {
		return v
	}
	return strings.ToValidUTF8(v[:maxShown], "") + "…"
}

// shownPath is the name of a file as an error may show it. What does not look
// like a path could be the secret itself, in the wrong variable.
func shownPath(path string) string {
	if strings.HasPrefix(path, "/") || strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../") {
		return shown(path)
	}
	return Hidden
}

// shownURL returns raw as an error or a log may show it: without credentials,
// without the values of the query, and when it is broken without all that
// could be a credential in the wrong place.
func shownURL(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || !isScheme(scheme) {
		return Hidden
	}
	credentials := ""
	// A password with a raw / or ? in it reaches to the last @ of all.
	at := strings.LastIndexByte(rest, '@')
	if at >= 0 {
		credentials, rest = Hidden+"@", rest[at+1:]
	}
	rest, _, hasQuery := strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	authority, path, _ := strings.Cut(rest, "/")
	if at < 0 && !plainPorts(authority) {
		return clip(scheme) + "://" + Hidden // user:password, the host forgotten
	}
	out := scheme + "://" + credentials + authority
	if len(rest) > len(authority) {
		out += "/" + path
	}
	if hasQuery {
		out += "?" + Hidden
	}
	return clip(out)
}

// plainPorts says whether all that follows a colon can be a port.
func plainPorts(authority string) bool {
	for item := range strings.SplitSeq(authority, ",") {
		if end := strings.IndexByte(item, ']'); end >= 0 && strings.HasPrefix(item, "[") {
			item = item[end+1:]
		}
		if _, port, ok := strings.Cut(item, ":"); ok && (!isNumber(port) || len(port) > 5) {
			return false
		}
	}
	return true
}

// isScheme says whether s is built like a scheme, and is thereby no secret.
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || (s[i] < '0' || s[i] > '9') && s[i] != '+' && s[i] != '-' && s[i] != '.') {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// Attrs are the fields that are set, without secrets.
func (v Values) Attrs() []slog.Attr {
	var attrs []slog.Attr
	add := func(name, text string) {
		if text != "" {
			attrs = append(attrs, slog.String(name, text))
		}
	}
	for _, s := range table {
		if s.path != "" {
			add(s.path, s.text(&v))
		}
		if s.path == "Port" {
			add("Socket", v.text("Socket"))
		}
	}
	for _, o := range []struct {
		name string
		set  bool
	}{
		{"TLS.Config", v.TLS.Config != nil},
		{"Require", v.Require},
		{"Embedded", v.Embedded},
		{"Credentials", v.HasCredentials},
	} {
		if o.set {
			attrs = append(attrs, slog.Bool(o.name, true))
		}
	}
	return attrs
}

// String shows the fields that are set; secrets are "***".
func (v Values) String() string { return Text("settings.Values", v.Attrs()) }

// Text writes name{field:value …}.
func Text(name string, attrs []slog.Attr) string {
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

// text is the value of one field without secrets; empty for the zero value.
func (v *Values) text(field string) string {
	if field == "Socket" {
		return shown(v.Socket)
	}
	if s, ok := byField[field]; ok {
		return s.text(v)
	}
	return ""
}
