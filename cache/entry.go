package cache

import (
	"encoding/binary"
	"time"

	"github.com/madcrow-go/madcrow/internal/binfmt"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
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
		b = binfmt.AppendText(b, t.name)
		b = binary.BigEndian.AppendUint64(b, t.deleted)
		b = binary.BigEndian.AppendUint64(b, t.expired)
	}
	if h.etag != "" {
		b = binfmt.AppendText(b, h.etag)
	}
	return b
}

// parseHeader reads an entry. size is how long the header is; there may be room
// for its tags.
func parseHeader(s string, room []tagMark) (h header, size int, err error) {
	r := binfmt.Reader{Text: s}
	if r.Octet() != formatVersion {
		return h, 0, binfmt.ErrFormat
	}
	h.codec = r.Octet()
	flags := r.Octet()
	if flags&^flagsKnown != 0 {
		return h, 0, binfmt.ErrFormat
	}
	h.negative = flags&flagNegative != 0
	h.freshFor = r.Duration(time.Millisecond)
	h.storedFor = r.Duration(time.Millisecond)
	h.cost = r.Duration(time.Microsecond)
	n := r.Uvarint()
	if n > cachelimit.MaxTags+cachelimit.MaxURLTags {
		return h, 0, binfmt.ErrFormat
	}
	if n > 0 {
		if h.tags = room[:0]; uint64(cap(room)) < n {
			h.tags = make([]tagMark, 0, n)
		}
		for range n {
			h.tags = append(h.tags, tagMark{r.Piece(), r.Uint64(), r.Uint64()})
		}
	}
	if flags&flagETag != 0 {
		h.etag = r.Piece()
	}
	if r.Bad || h.negative && r.At < len(s) { // an absence has no value
		return h, 0, binfmt.ErrFormat
	}
	return h, r.At, nil
}
