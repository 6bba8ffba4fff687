package main

import (
	"bytes"
	"fmt"
	"html"
	"strings"
	"time"
)

// The layout, in pixels.
const (
	width     = 1020
	left      = 260 // of the strips
	perMinute = 28
	right     = left + length*perMinute
	lifeTop   = 108
	rowsTop   = 232
	pitch     = 58
	tall      = 30 // of a strip
	closeTop  = rowsTop + 4*pitch + 62
	height    = closeTop + 222
)

const style = `
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
.paper { fill: #ffffff; stroke: #d1d9e0 }
.title { font-size: 19px; font-weight: 600 }
.name { font-size: 15px; font-weight: 600 }
.soft { fill: #59636e }
.small { font-size: 11px; fill: #59636e }
.tiny { font-size: 11px }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.edge { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 3 }
.line { fill: none; stroke: #59636e; stroke-width: 1.5 }
.hit { fill: #b6e0fe }
.load { fill: #b4e5bd }
.old { fill: #fbdf9d }
.bad { fill: #ffc9c4 }
.none { fill: #e4e9ee }
.gone { fill: none; stroke: #d1d9e0; stroke-dasharray: 4 3 }
.stripe { stroke: #1f7a38; stroke-width: 3; stroke-opacity: .45 }
.dot { fill: #1f2328 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117; stroke: #30363d }
  .soft, .small { fill: #9198a1 }
  .grid { stroke: #30363d }
  .edge, .line { stroke: #9198a1 }
  .hit { fill: #0f4a82 }
  .load { fill: #18572a }
  .old { fill: #6b4c00 }
  .bad { fill: #842722 }
  .none { fill: #2c333b }
  .gone { stroke: #4b535d }
  .stripe { stroke: #3fb950 }
  .dot { fill: #e6edf3 }
}
`

type sheet struct{ bytes.Buffer }

func (s *sheet) put(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

func (s *sheet) text(x, y int, class, anchor, text string) {
	s.put(`<text x="%d" y="%d" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(text))
}

func (s *sheet) box(class string, from, to, y, tall int) {
	s.put(`<rect class="%s" x="%d" y="%d" width="%d" height="%d"/>`, class, from, y, to-from, tall)
}

// at is where a minute stands.
func at(t time.Duration) int { return left + int(t*perMinute/time.Minute) }

func draw(all []*row) []byte {
	s := &sheet{}
	s.put(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">`, width, height, width, height)
	s.put(`<title id="title">The life of a cached value</title>`)
	s.put(`<desc id="desc">%s</desc>`, html.EscapeString(describe(all)))
	s.put(`<style>%s</style>`, style)
	s.put(`<defs><pattern id="stripes" width="9" height="9" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="stripe" d="M0 0V9"/></pattern></defs>`)
	s.put(`<rect class="paper" x=".5" y=".5" width="%d" height="%d" rx="8"/>`, width-1, height-1)
	s.text(24, 38, "title", "start", "The life of a cached value, and what GetOrLoad returns")
	s.text(24, 62, "soft", "start", fmt.Sprintf("TTL %v min, StaleTTL %v min, RefreshAhead %v, NegativeTTL %v min. Stored once, at 0; each strip shows what the next reader gets.",
		ttl.Minutes(), staleFor.Minutes(), refreshAhead, negativeTTL.Minutes()))
	s.life()
	for i, w := range all {
		s.row(rowsTop+i*pitch, w)
	}
	s.axis(rowsTop + len(all)*pitch)
	s.closeUp()
	s.put(`</svg>`)
	return s.Bytes()
}

// describe tells who cannot see it.
func describe(all []*row) string {
	var parts []string
	for _, w := range all {
		var segments []string
		for _, seg := range w.segments() {
			segments = append(segments, fmt.Sprintf("until minute %d %s", seg.to, w.word(seg.answer)))
		}
		parts = append(parts, w.name+": "+strings.Join(segments, ", "))
	}
	return fmt.Sprintf("A value is fresh for %v minutes, then stale for %v, then gone. ", ttl.Minutes(), staleFor.Minutes()) + strings.Join(parts, ". ") + "."
}

// life is what Redis holds.
func (s *sheet) life() {
	end := at(ttl + staleFor)
	refresh := at(time.Duration(float64(ttl) * refreshAhead))
	s.text(24, lifeTop+20, "name", "start", "The value in Redis")
	s.text(24, lifeTop+38, "soft", "start", "if it is not loaded again")
	s.box("hit", at(0), at(ttl), lifeTop, tall)
	s.box("old", at(ttl), end, lifeTop, tall)
	s.box("gone", end, right, lifeTop, tall)
	s.text((at(0)+at(ttl))/2, lifeTop+20, "", "middle", "fresh")
	s.text((at(ttl)+end)/2, lifeTop+20, "", "middle", "stale: kept in reserve")
	s.text((end+right)/2, lifeTop+20, "", "middle", "gone")
	s.span(at(0), at(ttl), lifeTop+tall+16, "TTL")
	s.span(at(ttl), end, lifeTop+tall+16, "StaleTTL")
	for _, x := range []int{refresh, at(ttl), end} {
		s.put(`<path class="edge" d="M%d %dV%d"/>`, x, lifeTop-6, rowsTop+2*pitch+tall+6)
	}
	for i, line := range []string{"RefreshAhead: from here a reader also", "starts a load, behind its answer (striped)"} {
		s.text(refresh-6, lifeTop+tall+44+14*i, "small", "end", line)
	}
	for i, line := range []string{"from here a load comes first,", "with the old value in reserve"} {
		s.text(at(ttl)+6, lifeTop+tall+44+14*i, "small", "start", line)
	}
	s.text(end+6, lifeTop+tall+44, "small", "start", "with nothing in reserve")
}

// span is a measure with a name.
func (s *sheet) span(from, to, y int, name string) {
	s.put(`<path class="line" d="M%d %dv8M%d %dH%dM%d %dv8"/>`, from+1, y-4, from+1, y, to-1, to-1, y-4)
	w := 8*len(name) + 10
	s.put(`<rect class="paper" style="stroke:none" x="%d" y="%d" width="%d" height="16"/>`, (from+to-w)/2, y-8, w)
	s.text((from+to)/2, y+4, "soft", "middle", name)
}

// class is how an answer is drawn.
func (a answer) class() string {
	switch a {
	case atOnce, refreshed:
		return "hit"
	case loaded, notFound:
		return "load"
	case old:
		return "old"
	case failed:
		return "bad"
	default:
		return "none"
	}
}

// behind says whether a load begins behind the answer.
func (a answer) behind() bool { return a == refreshed || a == reasked }

// segment is a time in which all answers are alike.
type segment struct {
	answer   answer
	from, to int
}

func (w *row) segments() (list []segment) {
	for minute, a := range w.answers {
		if n := len(list); n > 0 && list[n-1].answer == a {
			list[n-1].to = minute + 1
		} else {
			list = append(list, segment{a, minute, minute + 1})
		}
	}
	return list
}

// word says what a reader gets.
func (w *row) word(a answer) string {
	switch a {
	case atOnce, refreshed:
		return "the value, at once"
	case loaded:
		return "the new value, when it is loaded"
	case old:
		if w.soft == softTimeout {
			return "the old value, after SoftTimeout; the load goes on"
		}
		return "the old value"
	case failed:
		return "the error"
	case notFound:
		return "not found, after asking again"
	default:
		return "not found, at once"
	}
}

func (s *sheet) row(y int, w *row) {
	s.text(24, y+13, "name", "start", w.name)
	s.text(24, y+31, "soft", "start", w.note)
	for _, seg := range w.segments() {
		from, to := left+seg.from*perMinute, left+seg.to*perMinute
		s.box(seg.answer.class(), from, to, y, tall)
		if seg.answer.behind() {
			s.put(`<rect fill="url(#stripes)" x="%d" y="%d" width="%d" height="%d"/>`, from, y, to-from, tall)
			continue // what stands before it says enough
		}
		word := w.word(seg.answer)
		if 7*len(word) < to-from {
			s.text((from+to)/2, y+20, "", "middle", word)
		} else {
			first, rest := halves(word)
			s.text((from+to)/2, y+13, "tiny", "middle", first)
			s.text((from+to)/2, y+25, "tiny", "middle", rest)
		}
	}
}

// halves breaks a text near its middle.
func halves(text string) (string, string) {
	best := 0
	for i := range text {
		if text[i] == ' ' && abs(2*i-len(text)) < abs(2*best-len(text)) {
			best = i
		}
	}
	return text[:best], strings.TrimSpace(text[best:])
}

func abs(n int) int { return max(n, -n) }

func (s *sheet) axis(y int) {
	s.put(`<path class="grid" d="M%d %dH%d"/>`, left, y-14, right)
	for minute := 0; minute <= length; minute += 2 {
		x := left + minute*perMinute
		s.put(`<path class="grid" d="M%d %dv5"/>`, x, y-14)
		s.text(x, y+4, "small", "middle", fmt.Sprint(minute))
	}
	s.text((left+right)/2, y+22, "soft", "middle", "minutes since it was stored")
}

// The close-up, in milliseconds.
const (
	closeLength = 640
	closeSoft   = 100
	loadFrom    = 45
	loadTo      = 400
)

func (s *sheet) closeUp() {
	x := func(ms int) int { return left + ms*(right-left)/closeLength }
	s.text(24, closeTop+4, "name", "start", "One slow load, close up")
	s.text(24, closeTop+22, "soft", "start", "SoftTimeout 100 ms. All callers")
	s.text(24, closeTop+40, "soft", "start", "in all processes share it.")

	y := closeTop - 10
	s.box("load", x(loadFrom), x(loadTo), y, 26)
	s.text((x(loadFrom)+x(loadTo))/2, y+18, "", "middle", "one load; no caller's cancelling ends it")
	s.put(`<path class="edge" d="M%d %dV%d"/>`, x(loadTo), y-4, y+148)
	s.text(x(loadTo)+6, y+18, "small", "start", "stored: everybody gets the new one")

	for i, c := range []struct {
		name     string
		from, to int
		class    string
		got      string
	}{
		{"A", 40, 40 + closeSoft, "old", "the old value, SoftTimeout after it asked"},
		{"B", 90, 90 + closeSoft, "old", "the old value; it joined A's load"},
		{"C", 450, 450, "hit", "the new value, at once"},
		{"if nothing is in reserve", 40, loadTo, "load", "waits, at most HardTimeout"},
	} {
		line := y + 52 + 28*i
		s.text(left-10, line+4, "soft", "end", c.name)
		s.put(`<path class="line" d="M%d %dH%d"/>`, x(c.from), line, x(c.to))
		s.put(`<circle class="dot" cx="%d" cy="%d" r="4"/>`, x(c.from), line)
		s.put(`<rect class="%s" x="%d" y="%d" width="12" height="18" rx="3"/>`, c.class, x(c.to)+5, line-9)
		s.text(x(c.to)+24, line+4, "", "start", c.got)
	}
	base := y + 160
	s.put(`<path class="grid" d="M%d %dH%d"/>`, left, base, right)
	for ms := 0; ms <= closeLength; ms += 100 {
		s.put(`<path class="grid" d="M%d %dv5"/>`, x(ms), base)
		s.text(x(ms), base+18, "small", "middle", fmt.Sprint(ms))
	}
	s.text((left+right)/2, base+36, "soft", "middle", "milliseconds")
}
