package madcrowtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// nodeView is what one node of a cluster says of another, or of itself.
type nodeView struct {
	id        string
	port      int
	flags     []string
	master    string // its id, "-" for a master
	epoch     int64
	connected bool
	slots     [][2]int // ranges, both ends included
}

func (v nodeView) flag(name string) bool { return slices.Contains(v.flags, name) }

func (v nodeView) has(slot int) bool {
	return slices.ContainsFunc(v.slots, func(r [2]int) bool { return r[0] <= slot && slot <= r[1] })
}

// view returns what the node says of all.
func (s *Server) view() ([]nodeView, error) {
	reply, err := s.ask("CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	return parseView(reply), nil
}

// self returns what the node says of itself.
func (s *Server) self() (nodeView, error) {
	view, err := s.view()
	if err != nil {
		return nodeView{}, err
	}
	for _, v := range view {
		if v.flag("myself") {
			return v, nil
		}
	}
	return nodeView{}, fmt.Errorf("%s does not know itself", s.Addr())
}

// parseView reads CLUSTER NODES:
//
//	id 127.0.0.1:20000@30000 myself,master - 0 0 1 connected 0-5460 [7->-id]
func parseView(reply any) []nodeView {
	text, _ := reply.(string)
	var out []nodeView
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		v := nodeView{id: f[0], flags: strings.Split(f[2], ","), master: f[3], connected: f[7] == "connected"}
		addr, _, _ := strings.Cut(f[1], "@")
		v.port, _ = strconv.Atoi(addr[strings.LastIndexByte(addr, ':')+1:])
		v.epoch, _ = strconv.ParseInt(f[6], 10, 64)
		for _, word := range f[8:] {
			if strings.HasPrefix(word, "[") {
				continue // a slot that is on its way
			}
			first, last, isRange := strings.Cut(word, "-")
			from, _ := strconv.Atoi(first)
			to := from
			if isRange {
				to, _ = strconv.Atoi(last)
			}
			v.slots = append(v.slots, [2]int{from, to})
		}
		out = append(out, v)
	}
	return out
}

// summary is the part of a view in which all nodes agree once they are done.
func summary(view []nodeView) string {
	lines := make([]string, len(view))
	for i, v := range view {
		flags := slices.DeleteFunc(slices.Clone(v.flags), func(f string) bool { return f == "myself" })
		lines[i] = fmt.Sprintln(v.id, v.port, flags, v.master, v.connected, v.slots)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
