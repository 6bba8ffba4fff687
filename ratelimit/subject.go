package ratelimit

import "github.com/madcrow-go/madcrow/internal/keys"

// subjectKey is the key of a subject's state.
func subjectKey(prefix, subject string) string { return prefix + keys.Subject.Encode(subject) + "}" }
