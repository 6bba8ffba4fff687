package service

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of arguments.
const (
	maxKeyChars = 255
	maxLifetime = 100 * 365 * 24 * time.Hour
	minWindow   = 10 * time.Millisecond
	// maxLimit bounds the memory of one key, some 100 bytes a request.
	maxLimit = 1_000_000
)

// limitPrefix is what the HTTP route puts before a limit's key.
const limitPrefix = "rate_limit:"

// Beginnings of keys that belong to other rooms: nobody shall read a session
// through the cache, or fill a login limit by name.
var reserved = [...]string{"m1:", sessionPrefix, "login_attempts:"}

func (s *Service) checkCacheKey(key string) error {
	if err := checkText("key", key, maxKeyChars); err != nil {
		return err
	}
	if !s.rawKeys && strings.HasPrefix(key, limitPrefix) {
		return reservedError(limitPrefix)
	}
	return s.checkReserved(key)
}

func (s *Service) checkLimitKey(key string) error {
	// The route's own prefix does not count against the caller's 255.
	if err := checkText("key", strings.TrimPrefix(key, limitPrefix), maxKeyChars); err != nil {
		return err
	}
	return s.checkReserved(key)
}

func (s *Service) checkReserved(key string) error {
	if s.rawKeys {
		return nil
	}
	for _, p := range reserved {
		if strings.HasPrefix(key, p) {
			return reservedError(p)
		}
	}
	return nil
}

func reservedError(prefix string) error {
	return &ValidationError{Field: "key", Message: "must not begin with " + prefix + ", which is reserved"}
}

func checkText(field, text string, maxChars int) error {
	if text == "" {
		return &ValidationError{Field: field, Message: "must not be empty"}
	}
	if len(text) > maxChars && utf8.RuneCountInString(text) > maxChars {
		return &ValidationError{Field: field, Message: "must have at most " + strconv.Itoa(maxChars) + " characters"}
	}
	return nil
}

func checkLifetime(ttl time.Duration) error {
	if ttl < time.Millisecond || ttl > maxLifetime {
		return &ValidationError{Field: "ttl", Message: "must be from 1 ms to 100 years"}
	}
	return nil
}
