package exactjson_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/madcrow-go/madcrow/internal/exactjson"
)

const big = "1265476890672672808" // float64 makes 1265476890672672768 of it

type inner struct {
	Any any `json:"any"`
}

type outer struct {
	inner
	P     *inner            `json:"p"`
	List  []any             `json:"list"`
	Map   map[string]any    `json:"map"`
	Deep  map[int][]inner   `json:"deep"`
	Num   json.Number       `json:"num"`
	Int   int64             `json:"int"`
	Own   own               `json:"own"`
	Array [2]map[string]any `json:"array"`
	Next  *outer            `json:"next,omitempty"`
}

type own struct{ v any }

func (o *own) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &o.v) }

func TestUnmarshal_KeepsEveryDigitOfAWholeNumber(t *testing.T) {
	var v outer
	text := `{"any":` + big + `,"p":{"any":[` + big + `,1,1.5]},"list":[` + big + `,{"x":` + big + `}],"map":{"a":` + big + `,"b":2},` +
		`"deep":{"7":[{"any":-` + big + `}]},"num":3,"int":` + big + `,"own":4,"array":[{"y":` + big + `},null],"next":{"any":` + big + `}}`
	if err := exactjson.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	n := json.Number(big)
	for name, pair := range map[string][2]any{
		"any":       {v.Any, n},
		"pointer":   {v.P.Any, []any{n, 1.0, 1.5}},
		"list":      {v.List, []any{n, map[string]any{"x": n}}},
		"map":       {v.Map, map[string]any{"a": n, "b": 2.0}},
		"deep":      {v.Deep[7][0].Any, json.Number("-" + big)},
		"number":    {v.Num, json.Number("3")},
		"int":       {v.Int, int64(1265476890672672808)},
		"own":       {v.Own.v, 4.0},
		"array":     {v.Array[0]["y"], n},
		"of itself": {v.Next.Any, n},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %#v, want %#v", name, pair[0], pair[1])
		}
	}
}

// What is read is what is written, however often it goes around.
func TestUnmarshal_GoesAroundWithoutAChange(t *testing.T) {
	for _, text := range []string{
		`{"a":` + big + `}`, `[1,2.5,-3,999999999999999,1000000000000001,null,"x",true]`, big, `{"a":{"b":[{"c":18446744073709551615}]}}`,
		`1` + string(make([]byte, 0)) + `0000000000000000000000000000000000000000`,
	} {
		var v any
		if err := exactjson.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(v)
		if err != nil || string(again) != text {
			t.Errorf("%s became %s, %v", text, again, err)
		}
	}
}

// Numbers that float64 holds exactly keep the type that encoding/json gives them.
func TestUnmarshal_OrdinaryNumbersAreFloats(t *testing.T) {
	var v []any
	if err := exactjson.Unmarshal([]byte(`[0,1,-5,1.25,1e3,123456789012345]`), &v); err != nil {
		t.Fatal(err)
	}
	for _, n := range v {
		if _, ok := n.(float64); !ok {
			t.Errorf("%v is a %T", n, n)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{`{"a":1}`, `[` + big + `]`, `1 2`, `{"a":[1,{"b":2e400}]}`, ``, `nul`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var ours, theirs any
		err, theirErr := exactjson.Unmarshal([]byte(text), &ours), json.Unmarshal([]byte(text), &theirs)
		if theirErr == nil && err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err == nil && !json.Valid([]byte(text)) {
			t.Fatalf("%q was read", text)
		}
	})
}
