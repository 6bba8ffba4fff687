package keys

import (
	"slices"
	"strconv"
	"strings"
)

// Typed begins every key and channel of the typed packages, after a prefix.
const Typed = "m1:"

// server begins the channels that servers speak on themselves:
// __sentinel__:hello, __redis__:invalidate, __keyspace@0__:…
const server = "__"

// Reserved returns the reserved beginning that a key of a stranger's choice has
// in the place of a name under some prefix; "" is none. Reserved is what begins
// the keys of the typed packages, and others that the caller names, of the
// Python original. The prefix may be the one that is in force here, none, or that of another application on the same
// Redis. Nobody knows the last, so a beginning counts wherever a prefix may have
// ended: after any sign. A prefix that ends in a letter or a digit is not seen,
// nor, for the names of the original, one that ends in "_" or "-": those join
// words, and user_session:7 is an ordinary key.
func Reserved(prefix, name string, others ...string) string {
	full := prefix + name
	if within(full, len(prefix), Typed, false, "") {
		return Typed
	}
	for _, p := range others {
		if within(full, len(prefix), p, true, "") {
			return p
		}
	}
	return ""
}

// ReservedChannel is [Reserved] of a channel. What a server speaks on has no
// prefix, so it counts at the very beginning alone, but with our prefix and
// without it: a stranger sees no difference, and no rule should depend on it.
// Where only another application's prefix may have ended, the channels count that
// the typed packages have: factory:m1:temperature is an ordinary one.
func ReservedChannel(prefix, name string) string {
	if strings.HasPrefix(name, server) || strings.HasPrefix(prefix+name, server) && !strings.HasPrefix(prefix, server) {
		return server
	}
	if within(prefix+name, len(prefix), Typed, false, "topic:{", "probe:") {
		return Typed
	}
	return ""
}

// within says whether a beginning stands in full where a name may begin, and
// ends in what the stranger chose, which begins at own. But at the very beginning
// and at own it counts only where it goes on in one of some ways.
func within(full string, own int, beginning string, words bool, ways ...string) bool {
	goesOn := func(rest string) bool {
		return slices.ContainsFunc(ways, func(way string) bool { return strings.HasPrefix(rest, way) })
	}
	for at := max(0, own-len(beginning)+1); at < len(full); at++ {
		i := strings.Index(full[at:], beginning)
		if i < 0 {
			return false
		}
		at += i
		if at == 0 || at == own || goesOn(full[at+len(beginning):]) && (ends(full[at-1], words) || beginning == Typed && tagged(full[at:])) {
			return true
		}
	}
	return false
}

// ends says whether a prefix may end in c.
func ends(c byte, words bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80:
		return false
	case c == '_', c == '-':
		return !words
	}
	return true
}

// tagged says whether a key that begins here is one of the typed packages
// whatever stands before it: room1:lamp is not, shopm1:topic:{pay}:live is.
func tagged(key string) bool {
	return strings.Contains(key, ":{") || strings.HasSuffix(key, ":gen")
}

// maxChannel bounds the name of a channel, in bytes.
const maxChannel = 1024

// CheckChannel says what a channel must be that is published to or listened to
// by name; "" is that it may be used.
func CheckChannel(prefix, name string) string {
	if message := CheckChannelLength(name); message != "" {
		return message
	}
	if beginning := ReservedChannel(prefix, name); beginning != "" {
		return MustNotBegin(beginning)
	}
	return ""
}

// CheckChannelLength is the part of [CheckChannel] that holds for every name.
func CheckChannelLength(name string) string {
	if name == "" || len(name) > maxChannel {
		return "must have 1 to " + strconv.Itoa(maxChannel) + " bytes"
	}
	return ""
}

// MustNotBegin says that a beginning is reserved.
func MustNotBegin(beginning string) string {
	return "must not begin with " + beginning + ", which is reserved, nor have it where another application's prefix may end"
}
