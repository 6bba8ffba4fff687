package envvalue

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestDuration_TakesSecondsAndGoDurationsWithinBounds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"900": 15 * time.Minute, "0.1": 100 * time.Millisecond, "15m": 15 * time.Minute, "1h": time.Hour, "1e3": 1000 * time.Second,
	} {
		if d, err := Duration(text, time.Millisecond, time.Hour); err != nil || d != want {
			t.Errorf("%q: %v %v", text, d, err)
		}
	}
	for text, ranged := range map[string]bool{
		"0": true, "-1": true, "3601": true, "1e300": true, "1e400": true, "inf": true, "NaN": true, "61m": true,
		"": false, "soon": false, "1 h": false, "15min": false,
	} {
		if d, err := Duration(text, time.Millisecond, time.Hour); err == nil || d != 0 || errors.Is(err, ErrRange) != ranged {
			t.Errorf("%q: %v %v", text, d, err)
		}
	}
}

func TestInt_TakesWholeNumbersWithinBounds(t *testing.T) {
	if n, err := Int("5", 0, 5); n != 5 || err != nil {
		t.Error(n, err)
	}
	for text, ranged := range map[string]bool{"-1": true, "6": true, "99999999999999999999": true, "": false, "5.0": false, "five": false} {
		if n, err := Int(text, 0, 5); err == nil || n != 0 || errors.Is(err, ErrRange) != ranged {
			t.Errorf("%q: %v %v", text, n, err)
		}
	}
}

func TestBool_TakesWhatThePythonOriginalTakes(t *testing.T) {
	for text, want := range map[string]bool{"true": true, "T": true, "1": true, "Yes": true, "ON": true, "false": false, "F": false, "0": false, "no": false, "off": false} {
		if b, err := Bool(text); err != nil || b != want {
			t.Errorf("%q: %v %v", text, b, err)
		}
	}
	if _, err := Bool("maybe"); err == nil {
		t.Error("maybe is neither")
	}
}

func TestList_DropsBlanksAndEmptyItems(t *testing.T) {
	if got := List(" a, ,b ,,"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	if got := List(" "); got != nil {
		t.Errorf("%q", got)
	}
}
