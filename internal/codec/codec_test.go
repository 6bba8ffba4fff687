package codec_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// A whole number in an any came back as a float64, rounded: 1265476890672672768
// for 1265476890672672808.
func TestJSON_WholeNumbersInAnyKeepEveryDigit(t *testing.T) {
	type record struct{ ID any }
	c := codec.JSON[record]()
	text, err := c.Append(nil, record{int64(1265476890672672808)})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Decode(text)
	if err != nil || !reflect.DeepEqual(v.ID, json.Number("1265476890672672808")) {
		t.Fatalf("%#v, %v", v, err)
	}
	if again, err := c.Append(nil, v); err != nil || string(again) != string(text) {
		t.Fatalf("%s became %s, %v", text, again, err)
	}
}

func TestDefault_IsChosenByTheType(t *testing.T) {
	if id := codec.Default[string]().ID(); id != codec.Text().ID() {
		t.Errorf("string: %d", id)
	}
	if id := codec.Default[[]byte]().ID(); id != codec.Bytes().ID() {
		t.Errorf("[]byte: %d", id)
	}
	if id := codec.Default[json.RawMessage]().ID(); id != codec.JSON[int]().ID() {
		t.Errorf("json.RawMessage: %d", id)
	}
}

func TestJSON_AppendsWithoutEscapesAndNewline(t *testing.T) {
	c := codec.JSON[map[string]string]()
	out, err := c.Append([]byte("before"), map[string]string{"k": "<a&b>"})
	if err != nil || string(out) != `before{"k":"<a&b>"}` {
		t.Errorf("%s, %v", out, err)
	}
	// An encoder is used again, also after an error.
	if _, err := codec.JSON[func()]().Append(nil, func() {}); err == nil {
		t.Error("a function was encoded")
	}
	if out, err = c.Append(nil, nil); err != nil || string(out) != "null" {
		t.Errorf("%s, %v", out, err)
	}
}

// nested encodes another value while it is encoded.
type nested struct{}

func (nested) MarshalJSON() ([]byte, error) { return codec.JSON[string]().Append(nil, "inner") }

func TestJSON_MayBeUsedWhileItEncodes(t *testing.T) {
	if text, err := codec.Encode(codec.JSON[[]nested](), make([]nested, 2)); err != nil || text != `["inner","inner"]` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestBytes_AnEmptyValueIsNotNil(t *testing.T) {
	for name, decode := range map[string]func(codec.Codec[[]byte], string) ([]byte, error){
		"Decode": codec.Decode[[]byte], "Adopt": codec.Adopt[[]byte],
	} {
		if v, err := decode(codec.Bytes(), ""); v == nil || len(v) > 0 || err != nil {
			t.Errorf("%s: %#v, %v", name, v, err)
		}
	}
}

func TestDecode_BytesAreTheCallersOwn(t *testing.T) {
	text := strings.Clone("shared")
	v, err := codec.Decode(codec.Bytes(), text)
	if err != nil {
		t.Fatal(err)
	}
	v[0] = 'S'
	if text != "shared" {
		t.Errorf("the text became %s", text)
	}
}

func TestAdopt_TextsAndBytesNeedNoCopy(t *testing.T) {
	text := strings.Repeat("x", 100)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = codec.Adopt(codec.Text(), text)
		_, _ = codec.Adopt(codec.Bytes(), text)
		_, _ = codec.Decode(codec.Text(), text)
		_, _ = codec.Encode(codec.Text(), text)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if !codec.Adopts(codec.Text()) || !codec.Adopts(codec.Bytes()) || codec.Adopts(codec.JSON[string]()) {
		t.Error("Adopts does not say which")
	}
}

// bad panics.
type bad struct{ codec.Codec[string] }

func (bad) Append([]byte, string) ([]byte, error) { panic("append") }

func (bad) Decode([]byte) (string, error) { panic("decode") }

func TestCalls_APanicIsAnError(t *testing.T) {
	c := bad{codec.JSON[string]()}
	_, encode := codec.Encode(c, "v")
	_, appending := codec.Append(c, nil, "v")
	_, decode := codec.Decode(c, `"v"`)
	_, adopt := codec.Adopt(c, `"v"`)
	for _, err := range []error{encode, appending, decode, adopt} {
		if p := (*guard.Panic)(nil); !errors.As(err, &p) || !strings.HasPrefix(err.Error(), "the codec: ") {
			t.Errorf("%v", err)
		}
	}
}

func TestImmutable_SharesNothingThatCouldBeChanged(t *testing.T) {
	type flat struct {
		A int
		B string
		C [2]time.Time
	}
	type deep struct {
		flat
		D *int
	}
	if !codec.Immutable(codec.JSON[flat]()) || !codec.Immutable(codec.Default[int]()) {
		t.Error("a value that no one can change is said to be changeable")
	}
	if codec.Immutable(codec.JSON[deep]()) || codec.Immutable(codec.JSON[any]()) || codec.Immutable(codec.JSON[[]int]()) || codec.Immutable(codec.Bytes()) {
		t.Error("a value that can be changed is said to be immutable")
	}
	if codec.Immutable[int](ownDecode{codec.JSON[int]()}) {
		t.Error("what another codec decodes is not known")
	}
}

type ownDecode struct{ codec.Codec[int] }
