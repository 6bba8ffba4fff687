package settings

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/envvalue"
)

// field is how one field of Values is read, filled in, checked and shown. The
// functions below make one for each type.
type field struct {
	kind   string // the type, in words
	limits string // what the type does not say, in words
	def    string // the default as one would write it; empty: none
	fix    string // what a good value looks like

	secret bool                        // its value is never shown
	str    func(*Values) *string       // the field itself, of a text
	parse  func(*Values, string) error // writes what is not empty; the error does not repeat it
	fill   func(*Values)               // gives an empty field its default
	// inRange is false for a number outside of its bounds.
	inRange func(*Values) bool
	// text is the value as an error or a log may show it; empty for the zero
	// value.
	text func(*Values) string
	same func(a, b *Values) bool
}

// The kinds of settings.
const (
	kindText     = "text"
	kindNumber   = "whole number"
	kindBytes    = "bytes"
	kindBool     = "true/false"
	kindDuration = "duration"
	kindList     = "host:port, …"
	kindFile     = "file"
	kindURL      = "URL"
	kindDeploy   = Development + " or " + Production
)

const (
	minTimeout     = time.Millisecond
	maxTimeout     = time.Hour
	minConnections = 3
	maxDB          = 1<<31 - 1
	maxBytes       = 1 << 30
)

// bind makes the field at a place from how its type is read and shown.
func bind[T any](kind string, at func(*Values) *T, read func(string) (T, error), show func(T) string) field {
	return field{
		kind: kind,
		parse: func(v *Values, raw string) error {
			t, err := read(strings.TrimSpace(raw))
			if err == nil {
				*at(v) = t
			}
			return err
		},
		fill:    func(*Values) {},
		inRange: func(*Values) bool { return true },
		text: func(v *Values) string {
			if reflect.ValueOf(at(v)).Elem().IsZero() {
				return ""
			}
			return show(*at(v))
		},
		same: func(a, b *Values) bool { return reflect.DeepEqual(at(a), at(b)) },
	}
}

// orElse fills an empty field.
func orElse[T comparable](f field, at func(*Values) *T, def T) field {
	f.fill = func(v *Values) {
		if to := at(v); *to == *new(T) {
			*to = def
		}
	}
	return f
}

func asItIs(s string) (string, error) { return s, nil }

func text(at func(*Values) *string) field {
	f := bind(kindText, at, asItIs, shown)
	f.str = at
	return f
}

func textOr(at func(*Values) *string, def string) field {
	f := orElse(text(at), at, def)
	f.def = def
	return f
}

func file(at func(*Values) *string) field {
	f := text(at)
	f.kind = kindFile
	return f
}

// secret is a text that may begin and end with blanks.
func secret(at func(*Values) *string) field {
	f := bind(kindText, at, asItIs, func(string) string { return Hidden })
	f.str, f.secret = at, true
	f.parse = func(v *Values, raw string) error {
		*at(v) = raw
		return nil
	}
	return f
}

func deployEnv(at func(*Values) *string) field {
	f := bind(kindDeploy, at, func(raw string) (string, error) {
		if raw = strings.ToUpper(raw); raw != Development && raw != Production {
			return "", errors.New("it is neither " + Development + " nor " + Production)
		}
		return raw, nil
	}, shown)
	f = orElse(f, at, Development)
	f.str, f.def, f.fix = at, Development, "set "+Development+" or "+Production
	return f
}

func number(at func(*Values) *int, def, least, most int) field {
	f := bind(kindNumber, at, func(raw string) (int, error) { return envvalue.Int(raw, least, most) }, strconv.Itoa)
	f = orElse(f, at, def)
	f.inRange = func(v *Values) bool { return *at(v) >= least && *at(v) <= most }
	f.def, f.limits = strconv.Itoa(def), fmt.Sprintf(", %d to %d", least, most)
	if most == maxDB {
		f.limits = ", 0 or more"
	}
	f.fix = fmt.Sprintf("set a whole number from %d to %d", least, most)
	return f
}

func size(at func(*Values) *int, def int) field {
	f := number(at, def, 1, maxBytes)
	f.kind, f.fix = kindBytes, fmt.Sprintf("set a number of bytes from %d to %d", 1, maxBytes)
	return f
}

func duration(at func(*Values) *time.Duration, def time.Duration) field {
	f := bind(kindDuration, at, func(raw string) (time.Duration, error) {
		return envvalue.Duration(raw, minTimeout, maxTimeout)
	}, time.Duration.String)
	f = orElse(f, at, def)
	f.inRange = func(v *Values) bool { return *at(v) >= minTimeout && *at(v) <= maxTimeout }
	f.def, f.limits = strconv.FormatFloat(def.Seconds(), 'f', -1, 64), ", 1 ms to 1 h"
	f.fix = "set seconds (0.1) or a duration (100ms), from 1ms to 1h"
	return f
}

const fixBool = "set true or false"

func boolean(at func(*Values) *bool) field {
	f := bind(kindBool, at, envvalue.Bool, strconv.FormatBool)
	f.def, f.fix = "false", fixBool
	return f
}

// choice is a boolean that may be left open.
func choice(at func(*Values) **bool) field {
	f := bind(kindBool, at, func(raw string) (*bool, error) {
		b, err := envvalue.Bool(raw)
		return &b, err
	}, func(b *bool) string { return strconv.FormatBool(*b) })
	f.fix = fixBool
	return f
}

func addresses(at func(*Values) *[]string) field {
	return bind(kindList, at, func(raw string) ([]string, error) { return envvalue.List(raw), nil }, func(list []string) string {
		items := make([]string, len(list))
		for i, item := range list {
			items[i] = shown(item)
		}
		return clip(strings.Join(items, ","))
	})
}
