package typo_test

import (
	"testing"

	"github.com/madcrow-go/madcrow/internal/typo"
)

func TestDistance_CountsSingleMistakes(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"a", ""}: 1, {"", "ab"}: 2, {"list", "list"}: 0, {"lst", "list"}: 1, {"lsit", "list"}: 1,
		{"kill", "list"}: 3, {"nmae", "name"}: 1, {"ordres", "orders"}: 1, {"abcd", "xyz"}: 4,
	} {
		if got := typo.Distance(pair[0], pair[1]); got != want {
			t.Errorf("%q: %d, want %d", pair, got, want)
		}
	}
}
