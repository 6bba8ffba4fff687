// Package cachelimit holds the bounds that packages cache and httpcache share.
package cachelimit

import (
	"fmt"
	"time"
)

// The bounds of lifetimes.
const (
	MinTTL = 10 * time.Millisecond
	MaxTTL = 10 * 365 * 24 * time.Hour
)

// The bounds of tags. The tag of the whole cache counts as one of MaxTags;
// MaxURLTags are those that a page has beside.
const (
	MaxTags    = 64
	MaxURLTags = 2
	MaxTagSize = 256 // bytes
)

// TagProblem says what is wrong with the tags of an entry; "" is nothing.
func TagProblem(tags []string) string {
	if len(tags) >= MaxTags {
		return fmt.Sprintf("at most %d", MaxTags-1)
	}
	for _, t := range tags {
		if t == "" || len(t) > MaxTagSize {
			return fmt.Sprintf("each must have 1 to %d bytes", MaxTagSize)
		}
	}
	return ""
}
