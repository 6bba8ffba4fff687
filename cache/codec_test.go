package cache_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/madcrow-go/madcrow/cache"
)

// A whole number in an any came back as a float64, rounded: 1265476890672672768
// for 1265476890672672808.
func TestJSON_WholeNumbersInAnyKeepEveryDigit(t *testing.T) {
	type record struct{ ID any }
	codec := cache.JSON[record]()
	text, err := codec.Append(nil, record{int64(1265476890672672808)})
	if err != nil {
		t.Fatal(err)
	}
	v, err := codec.Decode(text)
	if err != nil || !reflect.DeepEqual(v.ID, json.Number("1265476890672672808")) {
		t.Fatalf("%#v, %v", v, err)
	}
	if again, err := codec.Append(nil, v); err != nil || string(again) != string(text) {
		t.Fatalf("%s became %s, %v", text, again, err)
	}
}
