package pubsub

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A typed message travels in an envelope of one line of text before the
// payload:
//
//	m1 <publisher> <number> <unix milliseconds>[ <skipped>,<skipped>…]\n
//
// The numbers of one publisher and channel have no holes but for the skipped
// ones, "7" or "7-12": messages that surely were not published. So a subscriber
// can count the messages that it missed.

const (
	envelopeMark = "m1 "
	// maxEnvelope bounds the line. It holds maxSkipped of the longest spans.
	maxEnvelope  = 4096
	maxPublisher = 64
	// numberSize is how many bytes number and time need at most, skippedSize how many a
	// span of skipped numbers needs.
	numberSize  = 40
	skippedSize = 42
)

type envelope struct {
	publisher string
	number    uint64
	sent      time.Time
	skipped   []span
	payload   string
}

// span is a range of numbers, both ends included.
type span struct{ from, to uint64 }

func (e envelope) text() string {
	var b strings.Builder
	b.Grow(len(envelopeMark) + len(e.publisher) + numberSize + skippedSize*len(e.skipped) + len(e.payload))
	b.WriteString(envelopeMark)
	b.WriteString(e.publisher)
	var num [24]byte
	b.WriteByte(' ')
	b.Write(strconv.AppendUint(num[:0], e.number, 10))
	b.WriteByte(' ')
	b.Write(strconv.AppendInt(num[:0], e.sent.UnixMilli(), 10))
	for i, v := range e.skipped {
		if i == 0 {
			b.WriteByte(' ')
		} else {
			b.WriteByte(',')
		}
		b.Write(strconv.AppendUint(num[:0], v.from, 10))
		if v.to != v.from {
			b.WriteByte('-')
			b.Write(strconv.AppendUint(num[:0], v.to, 10))
		}
	}
	b.WriteByte('\n')
	b.WriteString(e.payload)
	return b.String()
}

// parseEnvelope reads one; false for any other text.
func parseEnvelope(s string) (e envelope, ok bool) {
	rest, ok := strings.CutPrefix(s, envelopeMark)
	if !ok {
		return e, false
	}
	line, _, ok := strings.Cut(rest[:min(len(rest), maxEnvelope+1)], "\n")
	if !ok {
		return e, false
	}
	payload := rest[len(line)+1:]
	publisher, line, ok := strings.Cut(line, " ")
	if !ok || publisher == "" || len(publisher) > maxPublisher {
		return e, false
	}
	number, line, ok := strings.Cut(line, " ")
	if !ok {
		return e, false
	}
	sent, skipped, hasSkipped := strings.Cut(line, " ")
	n, ok := parseNumber(number)
	ms, err := strconv.ParseInt(sent, 10, 64)
	if !ok || err != nil {
		return e, false
	}
	e = envelope{publisher: publisher, number: n, sent: time.UnixMilli(ms), payload: payload}
	if hasSkipped {
		if e.skipped, ok = parseSkipped(skipped); !ok {
			return envelope{}, false
		}
	}
	return e, true
}

func parseNumber(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return n, err == nil && n > 0
}

func parseSkipped(s string) (list []span, ok bool) {
	for one := range strings.SplitSeq(s, ",") {
		from, to, isSpan := strings.Cut(one, "-")
		if !isSpan {
			to = from
		}
		a, ok1 := parseNumber(from)
		b, ok2 := parseNumber(to)
		if !ok1 || !ok2 || a > b {
			return nil, false
		}
		list = append(list, span{a, b})
	}
	return list, true
}

const (
	// maxSkipped bounds the spans of skipped numbers that are announced. While
	// Redis is away they are all neighbours.
	maxSkipped = 64
	// repeatSkipped is how long a span is announced again: the message that
	// announces it may be lost as well.
	repeatSkipped = 2 * time.Second
)

// numbers gives out the sequence numbers of one channel.
type numbers struct {
	publisher string // the name in the envelopes with these numbers

	mu      sync.Mutex
	last    uint64
	skipped []skippedSpan // surely not published, in order
}

type skippedSpan struct {
	span
	since     time.Time
	announced bool // in a message that was sent
}

func (n *numbers) next(now time.Time) (number uint64, skipped []span) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	if len(n.skipped) > 0 {
		n.skipped = slices.DeleteFunc(n.skipped, func(v skippedSpan) bool { return v.announced && now.Sub(v.since) > repeatSkipped })
		for _, v := range n.skipped {
			skipped = append(skipped, v.span)
		}
	}
	return n.last, skipped
}

// skip notes that a number surely was not published.
func (n *numbers) skip(number uint64, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, _ := slices.BinarySearchFunc(n.skipped, number, func(v skippedSpan, number uint64) int { return compare(v.from, number) })
	n.skipped = slices.Insert(n.skipped, at, skippedSpan{span: span{number, number}, since: now})
	if at+1 < len(n.skipped) && n.skipped[at+1].from == number+1 { // neighbours become one
		n.skipped[at].to = n.skipped[at+1].to
		n.skipped = slices.Delete(n.skipped, at+1, at+2)
	}
	if at > 0 && n.skipped[at-1].to+1 == number {
		n.skipped[at-1] = skippedSpan{span: span{n.skipped[at-1].from, n.skipped[at].to}, since: now}
		n.skipped = slices.Delete(n.skipped, at, at+1)
	}
	if len(n.skipped) > maxSkipped {
		n.skipped = n.skipped[1:] // those count as missing: rather too many than too few
	}
}

// markAnnounced notes the spans that a message has announced.
func (n *numbers) markAnnounced(skipped []span) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range skipped {
		for i := range n.skipped {
			if n.skipped[i].span == s {
				n.skipped[i].announced = true
			}
		}
	}
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// maxNumbered bounds the channels whose numbers are remembered here.
const maxNumbered = 1 << 16

// numbersOf returns the numbers of a channel. When too many channels are
// remembered all are dropped, and their next numbers have another publisher.
func (b *Bus) numbersOf(channel string) *numbers {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.numbers[channel]
	if n == nil {
		if len(b.numbers) >= maxNumbered {
			clear(b.numbers)
			b.numberResets++
		}
		n = &numbers{publisher: b.processID}
		if b.numberResets > 0 {
			n.publisher += "." + strconv.Itoa(b.numberResets)
		}
		b.numbers[channel] = n
	}
	return n
}

// size is how many numbers a span holds, a billion at most.
func (s span) size() int { return int(min(s.to-s.from+1, 1<<30)) }
