package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
)

// namesWithin bounds the search for the names that there are, where a name was left
// out or nothing was found under the one that was given.
const namesWithin = 2 * time.Second

// find looks for the things of a kind, up to namesWithin.
func find(ctx context.Context, r *madcrow.Redis, kind inventory.Kind) (*inventory.Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, namesWithin)
	defer cancel()
	return inventory.Find(ctx, r, inventory.Options{Kind: kind, NamesOnly: true})
}

// noSuch says that there is nothing of a kind under a name, and what there is. one
// is the kind in the singular.
func noSuch(ctx context.Context, r *madcrow.Redis, kind inventory.Kind, one, name string) error {
	text := fmt.Sprintf("there is no %s %q", one, name)
	inv, err := find(ctx, r, kind)
	if err != nil {
		return notThere{text}
	}
	return notThere{text + strings.TrimSuffix(didYouMean(name, inv.Names(kind)), "?") + "; " + present(inv, kind)}
}

// present names what there is of a kind.
func present(inv *inventory.Inventory, kind inventory.Kind) string {
	names := inv.Names(kind)
	if len(names) == 0 {
		return fmt.Sprintf("no %s are under the prefix %q%s", kind, inv.Prefix, asFar(inv))
	}
	const most = 20
	if len(names) > most {
		names = append(slices.Clone(names[:most]), "…")
	}
	return fmt.Sprintf("%s that there are%s: %s", kind, asFar(inv), oneLine(strings.Join(names, ", ")))
}

func asFar(inv *inventory.Inventory) string {
	if inv.Complete {
		return ""
	}
	return ", as far as was looked"
}

// onlyName is the one name that there is of a kind; flag is where to give one of
// several.
func onlyName(ctx context.Context, r *madcrow.Redis, kind inventory.Kind, flag string) (string, error) {
	inv, err := find(ctx, r, kind)
	if err != nil {
		return "", err
	}
	switch names := inv.Names(kind); {
	case len(names) == 1 && inv.Complete:
		return names[0], nil
	case len(names) == 0:
		return "", notThere{present(inv, kind)}
	default:
		return "", usageError{fmt.Errorf("give %s; %s", flag, present(inv, kind))}
	}
}
