package httpcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"time"
	"unsafe"

	"github.com/madcrow-go/madcrow/internal/binfmt"
)

// storedKind says what an entry is.
type storedKind byte

const (
	// kindResponse is a response.
	kindResponse storedKind = 1 + iota
	// kindPass says that the responses are not shareable. It may hold an earlier
	// one that was for all, to be served within its stale windows.
	kindPass
	// kindVary says by which headers the responses of a URL vary.
	kindVary
	// kindTags are the tags that a handler gave by header, so that the next
	// load knows them before it begins.
	kindTags
	// kindAgain is never stored: those who waited shall look again.
	kindAgain
)

// storedResponse is a response as it is stored, or what is known of the
// responses of a URL. It does not change.
type storedResponse struct {
	kind   storedKind
	status int
	strict bool // never to be served stale
	ownTag bool // the ETag is not the handler's

	fresh      time.Duration // counted from when it was stored, as swr and sie
	swr        time.Duration // after that, while it is loaded again
	sie        time.Duration // after fresh, when the handler fails
	initialAge time.Duration // when it was stored

	// vary are the headers by which the responses of the URL vary, variant is
	// which of them this one is. Both are empty where there is one alone.
	vary    []string
	variant string
	// gen is random: other variants are found by it, so that they are gone with
	// the entry that knows it.
	gen string

	tags   []string // of kindTags
	header http.Header
	body   []byte

	unstored bool // never stored: it is for those who wait alone
}

// reserve is the response that a kindPass with a status holds.
func (s *storedResponse) reserve() *storedResponse {
	r := *s
	r.kind = kindResponse
	return &r
}

// passing is a kindPass that holds s, which was stored so long ago.
func (s *storedResponse) passing(stored time.Duration) *storedResponse {
	p := *s
	over := s.overdue(stored)
	p.kind, p.fresh, p.initialAge = kindPass, max(0, s.fresh-stored), s.age(stored)
	p.swr, p.sie = max(0, s.swr-over), max(0, s.sie-over)
	if p.swr == 0 && p.sie == 0 {
		return passResponse
	}
	return &p
}

var (
	passResponse  = &storedResponse{kind: kindPass}
	againResponse = &storedResponse{kind: kindAgain}
)

// etag is the validator that clients know.
func (s *storedResponse) etag() string { return s.header.Get("Etag") }

// etagOf makes a strong one.
func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// age is how old it is in all, when it was stored that long ago.
func (s *storedResponse) age(stored time.Duration) time.Duration { return s.initialAge + stored }

// overdue is for how long it has been stale.
func (s *storedResponse) overdue(stored time.Duration) time.Duration { return max(0, stored-s.fresh) }

// codec stores responses:
//
//	byte     kind
//	byte     flags
//	uvarint  status, fresh, swr, sie, initial age (milliseconds)
//	list     vary
//	text     variant, generation
//	list     tags
//	uvarint  number of headers, and for each a text and a list
//	         the body, to the end
//
// A text is a uvarint length and so many bytes, a list a uvarint number and so
// many texts.
type codec struct{}

const (
	flagStrict = 1 << iota
	flagOwnTag
	flagsOfResponse = 1<<iota - 1
)

// ID is the next one after those in cache/codec.go. Another layout takes another one.
func (codec) ID() byte { return 4 }

func (codec) Append(b []byte, s *storedResponse) ([]byte, error) {
	b = slices.Grow(b, len(s.body)+1024)
	flags := byte(0)
	if s.strict {
		flags |= flagStrict
	}
	if s.ownTag {
		flags |= flagOwnTag
	}
	b = append(b, byte(s.kind), flags)
	for _, n := range []int64{
		int64(s.status), s.fresh.Milliseconds(), s.swr.Milliseconds(), s.sie.Milliseconds(), s.initialAge.Milliseconds(),
	} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binfmt.AppendList(b, s.vary)
	b = binfmt.AppendText(b, s.variant)
	b = binfmt.AppendText(b, s.gen)
	b = binfmt.AppendList(b, s.tags)
	b = binary.AppendUvarint(b, uint64(len(s.header)))
	for name, values := range s.header {
		b = binfmt.AppendList(binfmt.AppendText(b, name), values)
	}
	return append(b, s.body...), nil
}

func (codec) Decode(data []byte) (*storedResponse, error) {
	r := binfmt.Reader{Text: unsafe.String(unsafe.SliceData(data), len(data))}
	s := &storedResponse{kind: storedKind(r.Octet())}
	flags := r.Octet()
	if s.kind < kindResponse || s.kind > kindTags || flags&^flagsOfResponse != 0 {
		return nil, binfmt.ErrFormat
	}
	s.strict, s.ownTag = flags&flagStrict != 0, flags&flagOwnTag != 0
	status := r.Uvarint()
	for _, d := range []*time.Duration{&s.fresh, &s.swr, &s.sie, &s.initialAge} {
		*d = r.Duration(time.Millisecond)
	}
	s.vary, s.variant, s.gen, s.tags = r.List(), r.Copied(), r.Copied(), r.List()
	n := r.Uvarint()
	if n > uint64(len(data)) || s.kind == kindResponse && (status < 200 || status > 999) {
		return nil, binfmt.ErrFormat
	}
	s.status = int(status)
	if n > 0 {
		s.header = make(http.Header, n)
	}
	for range n {
		name := r.Copied()
		if s.header[name] = r.List(); r.Bad {
			break
		}
	}
	if r.Bad {
		return nil, binfmt.ErrFormat
	}
	s.body = bytes.Clone(data[r.At:])
	return s, nil
}
