package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/codec"
)

var update = flag.Bool("update", false, "write the golden files")

type page struct {
	ID    int               `json:"id"`
	Title string            `json:"title" msgpack:"t"`
	Tags  []string          `json:"tags,omitempty"`
	Meta  map[string]string `json:"meta,omitempty"`
	At    time.Time         `json:"at"`
	Next  *page             `json:"next,omitempty"`
}

func onePage(words int) page {
	return page{
		ID: 7, Title: strings.Repeat("Zoë reads a page. ", words), Tags: []string{"a", "b"}, Meta: map[string]string{"k": "v"},
		At: time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC), Next: &page{ID: -300},
	}
}

func (p page) equal(q page) bool {
	at := p.At.Equal(q.At)
	p.At, q.At = time.Time{}, time.Time{}
	if p.Next != nil && q.Next != nil {
		at = at && p.Next.equal(*q.Next)
		p.Next, q.Next = nil, nil
	}
	return at && reflect.DeepEqual(p, q)
}

func pages() map[string]madcrow.Codec[page] {
	return map[string]madcrow.Codec[page]{
		"msgpack":      codec.Msgpack[page](),
		"zstd":         codec.Zstd[page](nil),
		"zstd-msgpack": codec.Zstd(codec.Msgpack[page]()),
		"zstd-best":    codec.Zstd(madcrow.JSON[page](), codec.WithLevel(codec.Best), codec.WithMinSize(0)),
		"s2":           codec.S2[page](nil),
		"s2-better":    codec.S2(codec.Msgpack[page](), codec.WithLevel(codec.Better)),
		"s2-zstd":      codec.S2(codec.Zstd[page](nil)),
	}
}

func TestCodecs_GiveBackWhatTheyWereGiven(t *testing.T) {
	for name, c := range pages() {
		for _, words := range []int{0, 1, 40, 5000, 200_000} {
			want := onePage(words)
			data, err := c.Append([]byte("before"), want)
			if err != nil || !bytes.HasPrefix(data, []byte("before")) {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := c.Decode(data[len("before"):])
			if err != nil || !got.equal(want) {
				t.Errorf("%s of %d words: %+v %v", name, words, got, err)
			}
			if size := len(data); words >= 5000 && name != "msgpack" && size > words {
				t.Errorf("%s of %d words: %d bytes", name, words, size)
			}
		}
	}
}

func TestCompressed_ShortAndRandomValuesStayAsTheyAre(t *testing.T) {
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(rand.IntN(256))
	}
	for name, c := range map[string]madcrow.Codec[[]byte]{"zstd": codec.Zstd[[]byte](nil), "s2": codec.S2[[]byte](nil)} {
		for _, v := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("a"), 511), random} {
			data, err := c.Append(nil, v)
			if err != nil || !bytes.Equal(data, append([]byte{3, 0}, v...)) {
				t.Errorf("%s: %d bytes became %d: % x %v", name, len(v), len(data), data[:2], err)
			}
		}
		data, err := c.Append(nil, bytes.Repeat([]byte("a"), 512))
		if err != nil || len(data) > 64 || data[1] != 1 {
			t.Errorf("%s: 512 bytes became %d: %v", name, len(data), err)
		}
	}
}

func TestCompressed_NothingIsLargerThanTheMaximum(t *testing.T) {
	const most = 1 << 16
	for name, c := range map[string]madcrow.Codec[[]byte]{
		"zstd": codec.Zstd[[]byte](nil, codec.WithMaxSize(most)), "s2": codec.S2[[]byte](nil, codec.WithMaxSize(most)),
	} {
		data, err := c.Append(nil, make([]byte, most))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Decode(data); err != nil || len(got) != most {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if _, err := c.Append(nil, make([]byte, most+1)); !errors.Is(err, madcrow.ErrTooLarge) {
			t.Errorf("%s: one byte more: %v", name, err)
		}
	}
}

// packed is a compressed value that says it has size bytes.
func packed(size uint64, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{3, 1}, size), body...)
}

func TestCompressed_BombsTakeNoMemory(t *testing.T) {
	const most = 1 << 20
	huge := make([]byte, 1<<28)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	frame, block := enc.EncodeAll(huge, nil), s2.Encode(nil, huge)
	var stream bytes.Buffer // a frame that does not tell its size
	w, err := zstd.NewWriter(&stream)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Write(huge); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	zs, ss := codec.Zstd[[]byte](nil, codec.WithMaxSize(most)), codec.S2[[]byte](nil, codec.WithMaxSize(most))
	if _, err := zs.Decode(packed(9, nil)); err == nil { // it makes its tables now
		t.Error("an empty frame")
	}
	for name, bomb := range map[string]struct {
		c    madcrow.Codec[[]byte]
		data []byte
	}{
		"honest zstd":       {zs, packed(1<<28, frame)},
		"honest s2":         {ss, packed(1<<28, block)},
		"lying zstd":        {zs, packed(100, frame)},
		"lying s2":          {ss, packed(100, block)},
		"silent zstd":       {zs, packed(most, stream.Bytes())},
		"many frames":       {zs, packed(most, bytes.Repeat(enc.EncodeAll(huge[:most], nil), 500))},
		"beyond any memory": {zs, packed(1<<63, frame)},
		"s2 of 2 GB":        {ss, packed(most, binary.AppendUvarint(nil, 1<<31-1))},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := bomb.c.Decode(bomb.data)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 2*most {
			t.Errorf("%s: took %d bytes: %v", name, took, err)
		}
	}
}

func TestMsgpack_GarbageTakesNoMemoryAndNoDepth(t *testing.T) {
	deep := bytes.Repeat([]byte{0x91}, 50_000_000)
	deep[len(deep)-1] = 0xc0
	wide := bytes.Repeat([]byte{0xdd, 0, 0, 0xff, 0xff}, 9000)
	unknown := append([]byte{0x81, 0xa1, 'x'}, deep...)                                                 // a field to be skipped
	inside := []byte{0xd8, 0xff, 0x81, 0xa1, 'a', 0xdf, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0} // the content of an extension
	any1, page1, texts := codec.Msgpack[any](), codec.Msgpack[page](), codec.Msgpack[[]string]()
	for name, decode := range map[string]func() error{
		"4 billion of any":  func() error { _, err := any1.Decode([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}); return err },
		"4 billion texts":   func() error { _, err := texts.Decode([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}); return err },
		"4 billion fields":  func() error { _, err := page1.Decode([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}); return err },
		"a text of 4 GB":    func() error { _, err := any1.Decode([]byte{0xdb, 0xff, 0xff, 0xff, 0xff}); return err },
		"each in the other": func() error { _, err := any1.Decode(deep); return err },
		"in what is unread": func() error { _, err := page1.Decode(unknown); return err },
		"in an extension":   func() error { _, err := codec.Msgpack[map[string]any]().Decode(inside); return err },
		"many wide ones":    func() error { _, err := any1.Decode(wide); return err },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := decode()
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 1<<20 {
			t.Errorf("%s: took %d bytes: %v", name, took, err)
		}
	}
}

// pair writes two values, as the library's own documentation has it.
type pair struct{ a, b int }

func (p pair) EncodeMsgpack(enc *msgpack.Encoder) error { return enc.EncodeMulti(p.a, p.b) }

func (p *pair) DecodeMsgpack(dec *msgpack.Decoder) error { return dec.DecodeMulti(&p.a, &p.b) }

func TestMsgpack_WhatIsNotTheWholeValueIsAnError(t *testing.T) {
	c := codec.Msgpack[page]()
	data, err := c.Append(nil, onePage(3))
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if _, err := c.Decode(data[:n]); err == nil {
			t.Errorf("%d of %d bytes were enough", n, len(data))
		}
	}
	if _, err := c.Decode(append(data, 0xc0)); err == nil {
		t.Error("a byte too many was not seen")
	}
	if _, err := codec.Msgpack[map[any]any]().Decode([]byte{0x81, 0x90, 0xc0}); err == nil {
		t.Error("a list is no key of a map")
	}
	if _, err := codec.Msgpack[func()]().Append(nil, func() {}); err == nil {
		t.Error("a function was encoded")
	}
	pairs := codec.Msgpack[[]pair]()
	want := []pair{{1, 2}, {3, 1 << 40}}
	if data, err = pairs.Append(nil, want); err != nil {
		t.Fatal(err)
	}
	if got, err := pairs.Decode(data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
}

// What is in Redis today must be read by every later version.
func TestGolden_FormatsStay(t *testing.T) {
	want := onePage(60)
	for name, c := range pages() {
		file := filepath.Join("testdata", name+".golden")
		data, err := c.Append(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, fmt.Appendf(nil, "%x\n", data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var golden []byte
		if _, err := fmt.Sscanf(string(text), "%x", &golden); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Decode(golden); err != nil || !got.equal(want) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
		// How well it compresses may change, what stands before may not.
		if !bytes.Equal(data[:4], golden[:4]) || name == "msgpack" && !bytes.Equal(data, golden) {
			t.Errorf("%s is written differently now", name)
		}
	}
	ids := []byte{codec.Msgpack[page]().ID(), codec.Zstd[page](nil).ID(), codec.S2[page](nil).ID()}
	if !bytes.Equal(ids, []byte{10, 11, 12}) {
		t.Errorf("ids: %v", ids)
	}
}

func TestCodecs_ServeManyAtATime(t *testing.T) {
	for name, c := range pages() {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for n := range 30 {
					want := onePage(i*20 + n)
					data, err := c.Append(nil, want)
					if err != nil {
						t.Error(err)
						return
					}
					if got, err := c.Decode(data); err != nil || !got.equal(want) {
						t.Errorf("%s: %+v %v", name, got, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestOptions_OthersThanAllowedAreTheDefaults(t *testing.T) {
	c := codec.Zstd[string](nil, codec.WithMaxSize(-1), codec.WithMinSize(-1), codec.WithLevel(99))
	want := strings.Repeat("a", 1<<20)
	data, err := c.Append(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Decode(data); err != nil || got != want {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
