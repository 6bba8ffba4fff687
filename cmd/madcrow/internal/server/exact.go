package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// lifetime is a number of seconds; one that is too large stays too large.
func lifetime(seconds int64) time.Duration {
	return time.Duration(min(seconds, math.MaxInt64/int64(time.Second))) * time.Second
}

// exactFormats is JSON whose members are called exactly as they should be:
// encoding/json takes "Value" for "value", and of both the last. FastAPI
// Madcrow ignores members that it does not know.
func exactFormats() map[string]huma.Format {
	f := huma.DefaultJSONFormat
	f.Unmarshal = unmarshalExact
	return map[string]huma.Format{"application/json": f, "json": f}
}

func unmarshalExact(data []byte, v any) error {
	if tree, ok := v.(*any); ok { // huma looks at it before it is decoded
		return unmarshalTree(data, tree)
	}
	t := reflect.TypeOf(v)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return json.Unmarshal(data, v)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil || members == nil {
		return json.Unmarshal(data, v)
	}
	known := map[string]json.RawMessage{}
	for i := range t.Elem().NumField() {
		name, _, _ := strings.Cut(t.Elem().Field(i).Tag.Get("json"), ",")
		if value, has := members[name]; has {
			if t.Elem().Field(i).Type.Kind() == reflect.String && !wellFormed(value) {
				return errors.New(notUnicode + name)
			}
			known[name] = value
		}
	}
	var exact bytes.Buffer
	enc := json.NewEncoder(&exact)
	enc.SetEscapeHTML(false) // values stay as they are
	if err := enc.Encode(known); err != nil {
		return err
	}
	return json.Unmarshal(exact.Bytes(), v)
}

// unmarshalTree decodes any JSON. A number that no float64 can hold, which
// Python stores, stays a json.Number: where a number has bounds it is refused
// there, elsewhere it is kept as it is.
func unmarshalTree(data []byte, v *any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF { //nolint:errorlint // as Token returns it
		return errors.New("more than one value")
	}
	*v = withFloats(tree)
	return nil
}

func withFloats(v any) any {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return f
		}
	case []any:
		for i := range v {
			v[i] = withFloats(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = withFloats(v[name])
		}
	}
	return v
}

// notUnicode begins the error for a text that encoding/json would change, see
// fieldError.
const notUnicode = "expected Unicode text in "

// wellFormed says whether a JSON string means the text that is decoded of it: of
// what is no UTF-8 and of half a surrogate pair, encoding/json makes U+FFFD.
func wellFormed(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	high := false // half a pair was the last
	for len(text) > 0 {
		c := rune(-1)
		n := 1
		if text[0] == '\\' && len(text) > 1 {
			if n = 2; text[1] == 'u' && len(text) >= 6 {
				u, err := strconv.ParseUint(string(text[2:6]), 16, 16)
				if err == nil {
					n, c = 6, rune(u)
				}
			}
		}
		low := c >= 0xDC00 && utf16.IsSurrogate(c)
		if high != low {
			return false
		}
		high = utf16.IsSurrogate(c) && !low
		text = text[n:]
	}
	return !high
}
