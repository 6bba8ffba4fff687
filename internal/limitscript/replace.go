package limitscript

import (
	"context"
	_ "embed"
	"errors"
	"strconv"

	"github.com/madcrow-go/madcrow"
)

//go:embed lua/replace.lua
var replaceSource string

var replace = madcrow.NewScript("limit_replace", replaceSource)

// Foreign is what was found, and deleted, where a limit keeps its state.
type Foreign struct {
	Key string
	// Type is that of Redis: "hash", or "string" also for a text that is no
	// state of a limit.
	Type string
}

// MayBeForeign says whether a script may have failed because one of its keys
// holds what no limit wrote: the call would fail for ever then.
func MayBeForeign(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && (e.Kind == madcrow.KindWrongType || e.Kind == madcrow.KindServer && e.Outcome == madcrow.OutcomeUnknown)
}

// Replace deletes what the script cannot read, of the keys and with the
// arguments that it was called with, and tells what that was. The call may then
// be repeated if anything was deleted: each script reads all of its keys before
// it counts, so nothing was counted. It costs nothing where nothing fails.
func Replace(ctx context.Context, r *madcrow.Redis, s *madcrow.Script, keys, args []string) ([]Foreign, error) {
	m, err := r.Eval(ctx, replace, keys, held(s, len(keys), args))
	if err != nil {
		return nil, err
	}
	types, err := m.AsStrSlice()
	if err != nil {
		return nil, err
	}
	var found []Foreign
	for i, kind := range types {
		if kind != "" && i < len(keys) {
			found = append(found, Foreign{keys[i], kind})
		}
	}
	return found, nil
}

// held is what each key of a script holds, in the words of replace.lua.
func held(s *madcrow.Script, keys int, args []string) []string {
	all := []string{"log", "block"}
	switch s {
	case Set, Lease:
		all = []string{"set", "block"}
	case Window:
		all = []string{"window", "block"}
	case GCRA:
		all = []string{"gcra", "block"}
	case Blocked:
		all = []string{"block"}
	case Login:
		all = []string{"set", "blocks"}
	case Group:
		kinds := [...]string{"log", "set", "window", "gcra"}
		all = nil
		for i := 2; i < len(args); i += 6 { // as group.lua reads them
			n, _ := strconv.Atoi(args[i])
			all = append(all, kinds[n-1], "block")
		}
	}
	return all[:keys]
}
