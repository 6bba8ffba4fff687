package resp

import (
	"bufio"
	"reflect"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for in, want := range map[string]any{
		"+OK\r\n":                           "OK",
		"-ERR no\r\n":                       Error("ERR no"),
		":-3\r\n":                           int64(-3),
		"$2\r\nhi\r\n":                      "hi",
		"$0\r\n\r\n":                        "",
		"$-1\r\n":                           nil,
		"*-1\r\n":                           nil,
		"*2\r\n$1\r\na\r\n*1\r\n:1\r\n":     []any{"a", []any{int64(1)}},
		"*3\r\n+a\r\n-ERR b\r\n$-1\r\n+c\r": []any{"a", Error("ERR b"), nil},
	} {
		if got, err := Read(bufio.NewReader(strings.NewReader(in))); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "\n", "+OK\n", "HTTP/1.1 400\r\n", "$x\r\n", "$5\r\nab", "*1\r\n", "$99999999999\r\n", "*99999999999\r\n", strings.Repeat("*1\r\n", 20)} {
		if got, err := Read(bufio.NewReader(strings.NewReader(in))); err == nil {
			t.Errorf("%q was read as %v", in, got)
		}
	}
}

func TestWrite(t *testing.T) {
	var b strings.Builder
	if err := Write(&b, []string{"SET", "a", "ü\r\n"}, []string{"PING"}); err != nil {
		t.Fatal(err)
	}
	if want := "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nü\r\n\r\n*1\r\n$4\r\nPING\r\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func FuzzRead(f *testing.F) {
	f.Add("*2\r\n$1\r\na\r\n:1\r\n")
	f.Fuzz(func(_ *testing.T, in string) {
		_, _ = Read(bufio.NewReader(strings.NewReader(in)))
	})
}
