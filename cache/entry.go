package cache

import (
	"encoding/binary"
	"errors"
	"time"
)

// formatVersion is the first byte of every entry. Readers accept this one and
// the one before it, of which there is none yet.
const formatVersion = 1

// The flags of an entry.
const (
	flagNegative = 1 << iota
	flagETag
	flagsKnown = 1<<iota - 1
)

// header is what stands before the payload of an entry. It holds durations and
// no wall clock: the age is the lifetime it was stored with less what Redis
// says is left.
//
//	byte     version
//	byte     codec
//	byte     flags
//	uvarint  fresh for, milliseconds
//	uvarint  stored for, milliseconds
//	uvarint  cost of the load, microseconds
//	uvarint  number of tags, and for each
//	         uvarint length, name, 8 bytes of one generation, 8 of the other
//	uvarint  length of the ETag, ETag (with its flag)
type header struct {
	codec     byte
	negative  bool
	freshFor  time.Duration
	storedFor time.Duration
	cost      time.Duration
	tags      []tagMark
	etag      string
}

// tagMark is a tag of an entry, and its generations when the entry's load
// began. The name of the whole cache is empty.
type tagMark struct {
	name             string
	deleted, expired uint64
}

func (h *header) appendTo(b []byte) []byte {
	flags := byte(0)
	if h.negative {
		flags |= flagNegative
	}
	if h.etag != "" {
		flags |= flagETag
	}
	b = append(b, formatVersion, h.codec, flags)
	b = binary.AppendUvarint(b, uint64(h.freshFor.Milliseconds()))
	b = binary.AppendUvarint(b, uint64(h.storedFor.Milliseconds()))
	b = binary.AppendUvarint(b, uint64(h.cost.Microseconds()))
	b = binary.AppendUvarint(b, uint64(len(h.tags)))
	for i := range h.tags {
		t := &h.tags[i]
		b = binary.AppendUvarint(b, uint64(len(t.name)))
		b = append(b, t.name...)
		b = binary.BigEndian.AppendUint64(b, t.deleted)
		b = binary.BigEndian.AppendUint64(b, t.expired)
	}
	if h.etag != "" {
		b = binary.AppendUvarint(b, uint64(len(h.etag)))
		b = append(b, h.etag...)
	}
	return b
}

// errFormat is an entry that cannot be read. It is a miss.
var errFormat = errors.New("not an entry of this format")

// maxTags bounds the tags of one entry, and maxURLTags those that a page has
// beside.
const (
	maxTags    = 64
	maxURLTags = 2
)

// parseHeader reads an entry. size is how long the header is; there may be room
// for its tags.
func parseHeader(s string, room []tagMark) (h header, size int, err error) {
	r := reader{s: s}
	if r.byte() != formatVersion {
		return h, 0, errFormat
	}
	h.codec = r.byte()
	flags := r.byte()
	if flags&^flagsKnown != 0 {
		return h, 0, errFormat
	}
	h.negative = flags&flagNegative != 0
	h.freshFor = r.duration(time.Millisecond)
	h.storedFor = r.duration(time.Millisecond)
	h.cost = r.duration(time.Microsecond)
	n := r.uvarint()
	if n > maxTags+maxURLTags {
		return h, 0, errFormat
	}
	if n > 0 {
		if h.tags = room[:0]; uint64(cap(room)) < n {
			h.tags = make([]tagMark, 0, n)
		}
		for range n {
			h.tags = append(h.tags, tagMark{r.text(), r.uint64(), r.uint64()})
		}
	}
	if flags&flagETag != 0 {
		h.etag = r.text()
	}
	if r.bad || h.negative && r.at < len(s) { // an absence has no value
		return h, 0, errFormat
	}
	return h, r.at, nil
}

// reader reads from a string; after the first mistake it returns zeros.
type reader struct {
	s   string
	at  int
	bad bool
}

func (r *reader) take(n uint64) string {
	if r.bad || n > uint64(len(r.s)-r.at) {
		r.bad = true
		return ""
	}
	part := r.s[r.at : r.at+int(n)]
	r.at += int(n)
	return part
}

func (r *reader) byte() byte {
	if p := r.take(1); p != "" {
		return p[0]
	}
	return 0
}

func (r *reader) uint64() (n uint64) {
	for _, c := range []byte(r.take(8)) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *reader) uvarint() (n uint64) {
	for shift := 0; shift < 64; shift += 7 {
		c := r.byte()
		if shift == 63 && c > 1 {
			break // more than 64 bits
		}
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *reader) text() string { return r.take(r.uvarint()) }

// duration reads one of at most 200 years: more is no entry of ours.
func (r *reader) duration(unit time.Duration) time.Duration {
	n := r.uvarint()
	if n > uint64(200*365*24*time.Hour/unit) {
		r.bad = true
		return 0
	}
	return time.Duration(n) * unit
}
