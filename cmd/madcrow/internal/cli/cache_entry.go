package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/contrib/codec"
)

// What is to be said of an entry.
const (
	stateFresh   = "fresh"
	stateStale   = "stale"
	stateAbsent  = "absent"  // it is cached that there is no value
	stateRemoved = "removed" // by a tag, or by clear
)

func stateOf(e cache.Entry) string {
	switch {
	case e.Removed, e.Negative && e.TTL == 0:
		return stateRemoved
	case e.Negative:
		return stateAbsent
	case e.TTL == 0:
		return stateStale
	}
	return stateFresh
}

// entryAnswer is what get and ttl print of a typed entry as JSON. Found is
// whether there is a value, fresh or stale.
type entryAnswer struct {
	Key   string `json:"key"`
	Name  string `json:"name"`
	Found bool   `json:"found"`
	State string `json:"state,omitempty"`
	valueAnswer
	Codec    string   `json:"codec,omitempty"`
	CodecID  byte     `json:"codec_id,omitempty"`
	Negative bool     `json:"negative"`
	Age      *float64 `json:"age_seconds,omitempty"`
	TTL      *float64 `json:"ttl_seconds"`
	// KeptFor is null where somebody took the lifetime away.
	KeptFor *float64 `json:"kept_for_seconds"`
	Cost    float64  `json:"load_seconds,omitempty"`
	ETag    string   `json:"etag,omitempty"`
	Tags    []string `json:"tags,omitempty"`
}

// look finds the entry that get and ttl are about. answer is whole but for the
// value.
func look(ctx context.Context, r *madcrow.Redis, o *cacheOptions, key string) (e cache.Entry, answer entryAnswer, err error) {
	e, there, err := cache.Inspect(ctx, r, o.name, key)
	answer = entryAnswer{Key: key, Name: o.name}
	if err != nil || !there {
		return e, answer, err
	}
	answer.State = stateOf(e)
	answer.Found = answer.State == stateFresh || answer.State == stateStale
	answer.Negative = e.Negative
	if !e.Negative {
		answer.Codec, answer.CodecID = codecName(e.Codec), e.Codec
	}
	answer.Age, answer.TTL, answer.KeptFor = seconds(e.Age), seconds(e.TTL), seconds(e.KeptFor)
	answer.Cost, answer.ETag, answer.Tags = e.Cost.Seconds(), e.ETag, e.Tags
	return e, answer, nil
}

func getTyped(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	e, answer, err := look(ctx, r, o, args[0])
	if err != nil {
		return err
	}
	if answer.State == "" {
		return o.missingTyped(ctx, c, r, answer)
	}
	value, readable := readable(e.Codec, e.Data)
	if !readable {
		answer.set(string(e.Data))
		value = fmt.Sprintf("(%d bytes)", len(e.Data))
	} else if !e.Negative {
		answer.set(value)
	}
	if err := o.done(c, describe(e, value), answer); err != nil {
		return err
	}
	if !answer.Found {
		return errMiss
	}
	return nil
}

// describe is an entry as text. The value stands last: it may have many lines.
func describe(e cache.Entry, value string) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-7s"+format+"\n", append([]any{name}, args...)...)
	}
	line("state", "%s", stateText(e))
	line("age", "%v", e.Age.Truncate(time.Millisecond))
	if e.Cost > 0 {
		line("load", "took %v", e.Cost)
	}
	if len(e.Tags) > 0 {
		line("tags", "%s", strings.Join(e.Tags, ", "))
	}
	if e.ETag != "" {
		line("etag", "%s", e.ETag)
	}
	if !e.Negative {
		line("codec", "%s", codecName(e.Codec))
		line("value", "%s", value)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func stateText(e cache.Entry) string {
	kept := "kept for " + lifeText(e.KeptFor)
	if e.KeptFor < 0 {
		kept = "kept for ever: its lifetime was taken away"
	}
	switch s := stateOf(e); s {
	case stateFresh:
		return fmt.Sprintf("fresh for %v, %s", short(e.TTL), kept)
	case stateAbsent:
		return fmt.Sprintf("absent: it is cached for %v that there is no value", short(e.TTL))
	case stateRemoved:
		return "removed: it is served no more"
	default:
		return s + ", " + kept
	}
}

func ttlTyped(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o *cacheOptions, args []string) error {
	e, answer, err := look(ctx, r, o, args[0])
	if err != nil {
		return err
	}
	if !answer.Found {
		return o.missingTyped(ctx, c, r, answer)
	}
	text := short(e.TTL).String()
	if answer.State == stateStale {
		text = stateText(e)
	}
	return o.done(c, text, answer)
}

// codecNames are the codecs of the library, by id.
var codecNames = map[byte]string{1: codecJSON, 2: codecText, 3: codecBytes, 4: "http", 10: "msgpack", 11: "zstd", 12: "s2"}

func codecName(id byte) string {
	if name, ok := codecNames[id]; ok {
		return name
	}
	return fmt.Sprintf("%d", id)
}

// readable is a value as text, where its codec is known.
func readable(id byte, data []byte) (text string, ok bool) {
	switch codecNames[id] {
	case codecJSON, codecText, codecBytes:
		return string(data), true
	case "msgpack":
		v, err := codec.Msgpack[any]().Decode(data)
		if err != nil {
			return "", false
		}
		out, err := json.Marshal(v)
		return string(out), err == nil
	case "zstd":
		return unpacked(data, codec.Zstd[[]byte])
	case "s2":
		return unpacked(data, codec.S2[[]byte])
	}
	return "", false
}

// unpacked reads a compressed value. It begins with the id of the codec inside.
func unpacked(data []byte, around func(madcrow.Codec[[]byte], ...codec.Option) madcrow.Codec[[]byte]) (string, bool) {
	if len(data) == 0 {
		return "", false
	}
	inner := whatever{madcrow.Bytes(), data[0]}
	plain, err := around(inner).Decode(data)
	if err != nil {
		return "", false
	}
	return readable(inner.id, plain)
}

// whatever takes the bytes of any codec.
type whatever struct {
	madcrow.Codec[[]byte]
	id byte
}

func (w whatever) ID() byte { return w.id }
