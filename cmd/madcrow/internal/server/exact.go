package server

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// lifetime is a number of seconds; one that is too large stays too large.
func lifetime(seconds int64) time.Duration {
	return time.Duration(min(seconds, math.MaxInt64/int64(time.Second))) * time.Second
}

// exactFormats is JSON whose members are called exactly as they should be:
// encoding/json takes "Value" for "value", and of both the last. The original
// ignores what it does not know.
func exactFormats() map[string]huma.Format {
	f := huma.DefaultJSONFormat
	f.Unmarshal = unmarshalExact
	return map[string]huma.Format{"application/json": f, "json": f}
}

func unmarshalExact(data []byte, v any) error {
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
