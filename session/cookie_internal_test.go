package session

import (
	"net/http"
	"testing"
)

func TestCookieOf_ReadsWhatNetHTTPReads(t *testing.T) {
	for _, lines := range [][]string{
		nil,
		{""},
		{"s=a"},
		{"s=a; t=b"},
		{"t=b;s=a"},
		{" s = a ; x"},
		{`s="a b"`},
		{"s=a; s=b"},
		{"s=a", "s=b"},
		{"t=s=a"},
		{"s=a=b"},
		{"s="},
		{"S=a"},
		{"ss=a; xs=b"},
		{";;; s=a;"},
		{"\ts=a\t"},
	} {
		r := &http.Request{Header: http.Header{"Cookie": lines}}
		want, list := "", r.CookiesNamed("s")
		if len(list) == 1 {
			want = list[0].Value
		}
		if got, sent := cookieOf(r, "s"); got != want || sent != (len(list) > 0) {
			t.Errorf("%q: %q %v, not %q %v", lines, got, sent, want, len(list) > 0)
		}
	}
}
