package scriptsha

import (
	"crypto/sha1" //nolint:gosec // what it must equal
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

func TestName_IsTheSHA1OfTheScript(t *testing.T) {
	if got := Name("return 1"); got != "e0e1f9fabfc9d4800c877a703b823ac0578ff8db" { // as SCRIPT LOAD answers
		t.Errorf("%s", got)
	}
	for size := range 300 {
		text := make([]byte, size)
		for i := range text {
			text[i] = byte(rand.Uint32())
		}
		want := sha1.Sum(text) //nolint:gosec // as above
		if got := Name(string(text)); got != hex.EncodeToString(want[:]) {
			t.Errorf("%d bytes: %s, want %x", size, got, want)
		}
	}
}
