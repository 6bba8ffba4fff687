// Package binfmt reads and writes the parts of binary entries: numbers as
// uvarints, texts as a length and so many bytes, lists as a number and so many
// texts.
package binfmt

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

// ErrFormat is an entry that cannot be read. It is a miss.
var ErrFormat = errors.New("not an entry of this format")

// Reader reads from a string. After the first mistake it returns zeros, and Bad
// is true.
type Reader struct {
	Text string
	At   int // where the next part begins
	Bad  bool
}

func (r *Reader) next(n uint64) string {
	if r.Bad || n > uint64(len(r.Text)-r.At) {
		r.Bad = true
		return ""
	}
	part := r.Text[r.At : r.At+int(n)]
	r.At += int(n)
	return part
}

// Octet reads one byte.
func (r *Reader) Octet() byte {
	if p := r.next(1); p != "" {
		return p[0]
	}
	return 0
}

// Uint64 reads eight bytes, the highest first.
func (r *Reader) Uint64() (n uint64) {
	for _, c := range []byte(r.next(8)) {
		n = n<<8 | uint64(c)
	}
	return n
}

// Uvarint reads a number.
func (r *Reader) Uvarint() (n uint64) {
	for shift := 0; shift < 64; shift += 7 {
		c := r.Octet()
		if shift == 63 && c > 1 {
			break // more than 64 bits
		}
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.Bad = true
	return 0
}

// Piece reads a text, as a part of what is read.
func (r *Reader) Piece() string { return r.next(r.Uvarint()) }

// Copied reads a text that may live longer than what is read.
func (r *Reader) Copied() string { return strings.Clone(r.Piece()) }

// List reads a list of texts that may live longer than what is read.
func (r *Reader) List() []string {
	n := r.Uvarint()
	if n == 0 || r.Bad {
		return nil
	}
	if n > uint64(len(r.Text)-r.At) { // each takes a byte at least
		r.Bad = true
		return nil
	}
	list := make([]string, n)
	for i := range list {
		if list[i] = r.Copied(); r.Bad {
			return nil
		}
	}
	return list
}

// Duration reads a number of units. More than 200 years are a mistake.
func (r *Reader) Duration(unit time.Duration) time.Duration {
	n := r.Uvarint()
	if n > uint64(200*365*24*time.Hour/unit) {
		r.Bad = true
		return 0
	}
	return time.Duration(n) * unit
}

// AppendText writes a text.
func AppendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendList writes a list.
func AppendList(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = AppendText(b, s)
	}
	return b
}
