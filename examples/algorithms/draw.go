package main

import (
	"bytes"
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The layout, in pixels.
const (
	width     = 1020
	left      = 330 // of the panels
	perMinute = 70
	right     = left + 8*perMinute
	top       = 202 // of the first row
	pitch     = 132 // from row to row
	chart     = 80  // height of a count of 200
	strip     = 10  // height of a strip of requests
	cell      = 3.5 // width of three seconds
	height    = top + 5*pitch + 44
)

const style = `
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
.paper { fill: #ffffff; stroke: #d1d9e0 }
.title { font-size: 19px; font-weight: 600 }
.name { font-size: 15px; font-weight: 600 }
.big { font-size: 24px; font-weight: 600 }
.soft { fill: #59636e }
.small { font-size: 11px; fill: #59636e }
.panel { fill: #f6f8fa }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.limit { stroke: #1f2328; stroke-width: 1.2; stroke-dasharray: 5 4 }
.under { fill: #54aeff; fill-opacity: .55 }
.over { fill: #e5534b; fill-opacity: .8 }
.line { fill: none; stroke: #0969da; stroke-width: 1.3 }
.asked { fill: #59636e }
.yes { fill: #0969da }
.no { fill: #818b98 }
.bad { fill: #cf222e }
.l1 { fill-opacity: .3 } .l2 { fill-opacity: .5 } .l3 { fill-opacity: .75 } .l4 { fill-opacity: 1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117; stroke: #30363d }
  .soft, .small { fill: #9198a1 }
  .panel { fill: #161b22 }
  .grid { stroke: #30363d }
  .limit { stroke: #e6edf3 }
  .under { fill: #1f6feb }
  .line { stroke: #58a6ff }
  .asked { fill: #9198a1 }
  .yes { fill: #58a6ff }
  .no { fill: #6e7681 }
  .bad { fill: #ff7b72 }
}
`

type sheet struct{ bytes.Buffer }

func (s *sheet) put(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

func (s *sheet) text(x, y int, class, anchor, text string) {
	s.put(`<text x="%d" y="%d" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(text))
}

// px writes a coordinate in the same way on every machine.
func px(v float64) string { return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") }

func draw(all []*contestant) []byte {
	s := &sheet{}
	s.put(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">`, width, height, width, height)
	s.put(`<title id="title">One attack on five rate limiters of 100 a minute</title>`)
	s.put(`<desc id="desc">%s</desc>`, describe(all))
	s.put(`<style>%s</style>`, style)
	s.put(`<rect class="paper" x=".5" y=".5" width="%d" height="%d" rx="8"/>`, width-1, height-1)
	s.text(24, 38, "title", "start", "The same attack on five limiters of 100 a minute")
	s.text(24, 62, "soft", "start", "The curve is how many were admitted in the minute that ends there; red is above the limit.")
	s.text(24, 80, "soft", "start", "The strips show when requests were admitted and denied; stronger is more.")
	s.demand()
	for i, c := range all {
		s.row(top+i*pitch, i, c)
	}
	bottom := top + len(all)*pitch - 21
	for minute := range 9 {
		s.text(left+minute*perMinute, bottom+16, "small", "middle", fmt.Sprintf("%d:00", minute))
	}
	s.text((left+right)/2, bottom+36, "soft", "middle", "minutes")
	s.put(`</svg>`)
	return s.Bytes()
}

// describe tells who cannot see it.
func describe(all []*contestant) string {
	parts := make([]string, len(all))
	for i, c := range all {
		parts[i] = fmt.Sprintf("%s: %d", c.name, c.most())
	}
	return "20 requests a minute, a burst of 150 on either side of minute 2, and 300 more a minute from 4:30 to 6:30. Most admitted in any minute: " + html.EscapeString(strings.Join(parts, "; ")) + "."
}

// demand draws what is asked of each.
func (s *sheet) demand() {
	const base, tall = 172, 60
	s.text(24, base-36, "name", "start", "What is asked")
	s.text(24, base-18, "soft", "start", "Requests in each 3 seconds.")
	s.put(`<rect class="panel" x="%d" y="%d" width="%d" height="%d"/>`, left, base-tall, right-left, tall)
	s.grid(base-tall, base)
	var path strings.Builder
	for i, n := range bins(attack()) {
		if n > 0 {
			h := float64(n*tall) / 80
			fmt.Fprintf(&path, "M%s %dv-%sh%sv%sz", px(left+float64(i)*cell), base, px(h), px(cell), px(h))
		}
	}
	s.put(`<path class="asked" d="%s"/>`, path.String())
	s.text(left+6, base-10, "small", "start", "steady, 20 a minute")
	s.text(left+2*perMinute+12, base-tall+16, "small", "start", "150 before 2:00, 150 after it")
	s.text(left+11*perMinute/2, base-20, "small", "middle", "300 more a minute")
}

// grid marks each clock minute.
func (s *sheet) grid(from, to int) {
	for minute := range 9 {
		s.put(`<path class="grid" d="M%d %dV%d"/>`, left+minute*perMinute, from, to)
	}
}

func (s *sheet) row(y, i int, c *contestant) {
	base := y + chart
	s.text(24, y+18, "name", "start", c.name)
	for n, note := range c.notes {
		s.text(24, y+38+18*n, "soft", "start", note)
	}
	s.put(`<rect class="panel" x="%d" y="%d" width="%d" height="%d"/>`, left, y, right-left, chart)
	s.grid(y, base+9+2*strip)
	for _, n := range []int{0, 100, 200} {
		s.text(left-6, base-n*chart/200+4, "small", "end", strconv.Itoa(n))
	}

	at := base - limit*chart/200
	line := c.curve(base)
	s.put(`<clipPath id="o%d"><rect x="%d" y="%d" width="%d" height="%d"/></clipPath>`, i, left, y-8, right-left, at-y+8)
	s.put(`<clipPath id="u%d"><rect x="%d" y="%d" width="%d" height="%d"/></clipPath>`, i, left, at, right-left, chart)
	s.put(`<path class="under" clip-path="url(#u%d)" d="%sV%dH%dz"/>`, i, line, base, left)
	s.put(`<path class="over" clip-path="url(#o%d)" d="%sV%dH%dz"/>`, i, line, base, left)
	s.put(`<path class="line" d="%s"/>`, line)
	s.put(`<path class="limit" d="M%d %dH%d"/>`, left, at, right)

	s.text(right-5, at-5, "small", "end", "limit")

	s.strip(base+7, "yes", bins(c.admitted))
	s.strip(base+9+strip, "no", bins(c.denied))
	s.text(left-6, base+16, "small", "end", "admitted")
	s.text(left-6, base+18+strip, "small", "end", "denied")

	most := c.most()
	class := "big"
	if most > limit {
		class += " bad"
	}
	s.text(right+16, y+30, class, "start", strconv.Itoa(most))
	s.text(right+16, y+48, "small", "start", "most in a minute")
	s.text(right+16, y+78, "small", "start", fmt.Sprintf("%d of %d", len(c.admitted), len(c.admitted)+len(c.denied)))
	s.text(right+16, y+92, "small", "start", "admitted")
}

// bins counts requests in each three seconds.
func bins(at []time.Duration) []int {
	const each = 3 * time.Second
	out := make([]int, length/each)
	for _, t := range at {
		out[t/each]++
	}
	return out
}

// strip shows where requests are: the more, the stronger.
func (s *sheet) strip(y int, class string, counts []int) {
	level := func(n int) int {
		return slices.IndexFunc([]int{0, 1, 4, 9, 1 << 30}, func(most int) bool { return n <= most })
	}
	var paths [5]strings.Builder
	for i := 0; i < len(counts); {
		end := i + 1
		for end < len(counts) && level(counts[end]) == level(counts[i]) {
			end++
		}
		fmt.Fprintf(&paths[level(counts[i])], "M%s %dH%sv%dH%sz", px(left+float64(i)*cell), y, px(left+float64(end)*cell), strip, px(left+float64(i)*cell))
		i = end
	}
	for level := range paths {
		if d := paths[level].String(); level > 0 && d != "" {
			s.put(`<path class="%s l%d" d="%s"/>`, class, level, d)
		}
	}
}

// curve is the count of the trailing window, at its highest in each pixel.
func (c *contestant) curve(base int) string {
	type step struct {
		at time.Duration
		by int
	}
	var steps []step
	for _, t := range c.admitted {
		// At one instant what is a window old leaves first.
		steps = append(steps, step{t, 1}, step{t + window, -1})
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return a.by - b.by
	})
	var d strings.Builder
	fmt.Fprintf(&d, "M%d %d", left, base)
	const column = window / perMinute
	now, drawn, next := 0, 0, 0
	for i := range right - left {
		most := now
		for next < len(steps) && steps[next].at < time.Duration(i+1)*column {
			now += steps[next].by
			most = max(most, now)
			next++
		}
		if most != drawn {
			fmt.Fprintf(&d, "H%dV%s", left+i, px(float64(base)-float64(most*chart)/200))
			drawn = most
		}
	}
	fmt.Fprintf(&d, "H%d", right)
	return d.String()
}
