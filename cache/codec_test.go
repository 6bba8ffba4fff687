package cache_test

import (
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
)

// badCodec panics.
type badCodec struct{ encode, decode bool }

func (badCodec) ID() byte { return 200 }

func (c badCodec) Append(dst []byte, v string) ([]byte, error) {
	if c.encode {
		panic("encode")
	}
	return append(dst, v...), nil
}

func (c badCodec) Decode(data []byte) (string, error) {
	if c.decode {
		panic("decode")
	}
	return string(data), nil
}

func TestCache_PanicOfTheCodecIsLikeItsError(t *testing.T) {
	r := open(t)
	good := newCache(t, r, cache.Options[string]{Codec: badCodec{}})
	mustLoad(t, good, "k", always("v"), "v")
	bad := newCache(t, r, cache.Options[string]{Codec: badCodec{decode: true}})
	if _, found, err := bad.Get(t.Context(), "k"); found || err != nil {
		t.Errorf("%v %v", found, err)
	}
	mustLoad(t, bad, "k", always("w"), "w")
	worse := newCache(t, r, cache.Options[string]{Codec: badCodec{encode: true}})
	mustLoad(t, worse, "l", always("v"), "v")
	if err := worse.Set(t.Context(), "l", "v"); err == nil {
		t.Error("Set: no error")
	}
	if err := worse.SetMany(t.Context(), map[string]string{"l": "v"}); err == nil {
		t.Error("SetMany: no error")
	}
	start := time.Now()
	mustLoad(t, good, "l", always("v"), "v")
	if took := time.Since(start); took > time.Second {
		t.Errorf("others could load after %v", took)
	}
}
