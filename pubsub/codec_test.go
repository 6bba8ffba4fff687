package pubsub_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/madcrow-go/madcrow"
)

// A whole number in an any came back as a float64, rounded: 1265476890672672768
// for 1265476890672672808.
func TestJSON_WholeNumbersInAnyKeepEveryDigit(t *testing.T) {
	codec := madcrow.JSON[map[string]any]()
	text, err := codec.Append(nil, map[string]any{"id": int64(1265476890672672808), "n": 1})
	if err != nil {
		t.Fatal(err)
	}
	v, err := codec.Decode(text)
	if want := (map[string]any{"id": json.Number("1265476890672672808"), "n": 1.0}); err != nil || !reflect.DeepEqual(v, want) {
		t.Fatalf("%#v, %v", v, err)
	}
	if again, err := codec.Append(nil, v); err != nil || string(again) != string(text) {
		t.Fatalf("%s became %s, %v", text, again, err)
	}
}
