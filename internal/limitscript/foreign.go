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

// Foreign is a value that no limit wrote, found under a limit's key and deleted.
type Foreign struct {
	Key string
	// Type is the type in Redis. It is "string" also for a text that is not the
	// state of a limit.
	Type string
}

// mayBeForeign reports whether a script may have failed because one of its keys
// holds a value that no limit wrote: the call would then fail for ever.
func mayBeForeign(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && (e.Kind == madcrow.KindWrongType || e.Kind == madcrow.KindServer && e.Outcome == madcrow.OutcomeUnknown)
}

// deleteForeign deletes the keys that the script cannot read, and returns them.
// keys and args are those of the failed call. If a key was deleted, the call may
// be repeated: each script reads all of its keys before it counts, so nothing was
// counted.
func deleteForeign(ctx context.Context, r *madcrow.Redis, s *madcrow.Script, keys, args []string) ([]Foreign, error) {
	m, err := r.Eval(ctx, replace, keys, held(s, len(keys), args)).Message()
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

// held names the content of each key of a script, as replace.lua knows it.
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
	case LoginBlocked:
		all = []string{"blocks"}
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
