package keys

import (
	"slices"
	"strconv"
	"strings"
)

// Typed begins every key and channel of the typed packages, after a prefix.
const Typed = "m1:"

// server begins the channels that servers themselves use:
// __sentinel__:hello, __redis__:invalidate, __keyspace@0__:…
const server = "__"

// Reserved returns the reserved beginning of a key that a user chose, where some
// prefix ends and a name starts; "" is none. Reserved are the beginnings of the
// keys of the typed packages, and others that the caller names: those of the
// FastAPI layout. The prefix may be ours, none, or that of another application on
// the same Redis. The last is unknown, so a beginning counts wherever a prefix
// may end: after any sign. A prefix that ends in a letter or a digit is not
// recognised. For the FastAPI layout, neither is one that ends in "_" or "-":
// those join words, and user_session:7 is an ordinary key.
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

// ReservedChannel is [Reserved] of a channel. A server's own channels have no
// prefix. So their beginning counts only at the start of a channel, with our
// prefix and without it: the rule must not depend on the prefix. Where only
// another application's prefix may end, only the channels of the typed packages
// count: factory:m1:temperature is an ordinary one.
func ReservedChannel(prefix, name string) string {
	if strings.HasPrefix(name, server) || strings.HasPrefix(prefix+name, server) && !strings.HasPrefix(prefix, server) {
		return server
	}
	if within(prefix+name, len(prefix), Typed, false, "topic:{", "probe:") {
		return Typed
	}
	return ""
}

// within reports whether a beginning stands in full where a name may start, and
// ends in the user's part, which starts at own. Elsewhere than at 0 and at own it
// counts only if one of the given ways follows.
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

// ends reports whether a prefix may end in c.
func ends(c byte, words bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80:
		return false
	case c == '_', c == '-':
		return !words
	}
	return true
}

// tagged reports whether a key that starts here is one of the typed packages,
// whatever precedes it: room1:lamp is not, shopm1:topic:{pay}:live is.
func tagged(key string) bool {
	return strings.Contains(key, ":{") || strings.HasSuffix(key, ":gen")
}

// maxChannel bounds the name of a channel, in bytes.
const maxChannel = 1024

// CheckChannel says what is wrong with the name of a channel that users publish
// or subscribe to; "" is nothing.
func CheckChannel(prefix, name string) string {
	if message := CheckChannelLength(name); message != "" {
		return message
	}
	if beginning := ReservedChannel(prefix, name); beginning != "" {
		return MustNotBegin(beginning)
	}
	return ""
}

// CheckChannelLength is the part of [CheckChannel] that holds for every channel.
func CheckChannelLength(name string) string {
	if name == "" || len(name) > maxChannel {
		return "must have 1 to " + strconv.Itoa(maxChannel) + " bytes"
	}
	return ""
}

// MustNotBegin is the message for a reserved beginning.
func MustNotBegin(beginning string) string {
	return "must not begin with " + beginning + ", which is reserved, nor have it where another application's prefix may end"
}
