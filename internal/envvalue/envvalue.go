// Package envvalue reads the values of settings, one way for all of them.
package envvalue

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// ErrRange is a value of the right form that is too small or too large.
var ErrRange = errors.New("it is out of range")

// Bool takes what the Python original takes.
func Bool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "t", "1", "yes", "y", "on":
		return true, nil
	case "false", "f", "0", "no", "n", "off":
		return false, nil
	}
	return false, errors.New("it is neither true nor false")
}

// Int takes a whole number within its bounds.
func Int(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return 0, errors.New("it is not a whole number")
	case err != nil || n < least || n > most:
		return 0, ErrRange
	}
	return n, nil
}

// Duration takes seconds ("0.1") and Go durations ("100ms") within bounds.
func Duration(s string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		f, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil && !errors.Is(err, strconv.ErrRange):
			return 0, errors.New("it is neither seconds nor a duration")
		case math.IsNaN(f) || math.Abs(f) > most.Seconds():
			return 0, ErrRange
		}
		d = time.Duration(math.Round(f * float64(time.Second)))
	}
	if d < least || d > most {
		return 0, ErrRange
	}
	return d, nil
}

// List takes items with commas between them. Blanks around an item do not
// count, and empty ones are dropped.
func List(s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
