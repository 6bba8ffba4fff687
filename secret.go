package madcrow

import (
	"fmt"
	"log/slog"

	"github.com/madcrow-go/madcrow/internal/settings"
)

// Secret is a password. It is shown as "***", and as nothing when it is empty:
// by every verb of package fmt that go vet accepts for it, by encoding/json
// and other encoders of text, and by log/slog; alone, behind a pointer, and
// inside structs, slices and maps. An untyped constant is a Secret as it
// stands, other text is converted: Secret(text). string(s) is the password.
//
// Package fmt calls no methods on unexported fields: a struct that holds a
// Secret, or a [Config], in one and may be printed needs a String of its own.
// A Secret is not for the keys of a map.
type Secret string

// String returns "***", or nothing for an empty Secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return settings.Hidden
}

// GoString is String in quotes, for %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format formats String, whatever the verb: those that are wrong for a text
// would show the value otherwise.
func (s Secret) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), s.String())
}

// MarshalText is String, for encoding/json, encoding/xml and other encoders.
// Nothing reads the password back from it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
