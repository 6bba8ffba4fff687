package sse

import (
	"strings"
	"testing"
)

// FuzzSSEFrame reads what was written by the rules of the HTML standard:
// whatever a message holds is one event, with its line breaks as "\n".
func FuzzSSEFrame(f *testing.F) {
	f.Add("1-2-x", "gap", "one\r\ntwo\rthree\n\nfour")
	f.Add("1\nevent: forged", "", "")
	f.Add("", "", "data: x\n\n:\r\r\r\nid:7")
	f.Fuzz(func(t *testing.T, id, name, data string) {
		if strings.ContainsAny(name, "\r\n") {
			return // names are ours
		}
		text := string(frame{id: id, event: name, data: data}.appendTo(nil))
		want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)
		var gotID, gotName string
		var lines []string
		events := 0
		for _, line := range strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n") {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case line == "" && lines != nil:
				events++
				if got := strings.Join(lines, "\n"); got != want {
					t.Errorf("data %q, want %q", got, want)
				}
				lines = nil
			case field == "data":
				lines = append(lines, value)
			case field == "id":
				gotID = value
			case field == "event":
				gotName = value
			case line != "":
				t.Errorf("line %q", line)
			}
		}
		if strings.ContainsAny(id, "\r\n\x00") {
			id = ""
		}
		if events != 1 || gotID != id || gotName != name {
			t.Errorf("%d events, id %q, name %q, of %q", events, gotID, gotName, text)
		}
	})
}
