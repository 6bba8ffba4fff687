package service

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/madcrow-go/madcrow/internal/keys"
)

// Bounds of arguments.
const (
	maxKeyChars = 255
	maxLifetime = 100 * 365 * 24 * time.Hour
	minWindow   = 10 * time.Millisecond
	// maxLimit bounds the memory of one key, some 100 bytes a request.
	maxLimit = 1_000_000
)

// limitPrefix is the prefix that the HTTP route adds to a rate limit's key.
const limitPrefix = "rate_limit:"

// reserved are the beginnings of FastAPI Madcrow's other keys. The cache refuses
// them: a client must not read a session through the cache, or fill a login limit.
var reserved = []string{sessionPrefix, "login_attempts:", limitPrefix}

func (s *Service) checkCacheKey(key string) error {
	if err := checkText("key", key, maxKeyChars); err != nil {
		return err
	}
	return s.checkReserved(key)
}

func (s *Service) checkLimitKey(key string) error {
	// The route's own prefix does not count against the caller's 255.
	if err := checkText("key", strings.TrimPrefix(key, limitPrefix), maxKeyChars); err != nil {
		return err
	}
	if strings.HasPrefix(key, limitPrefix) {
		return nil // a rate limit of anything, for example of session:7
	}
	return s.checkReserved(key)
}

func (s *Service) checkReserved(key string) error {
	if s.rawKeys {
		return nil
	}
	if beginning := keys.Reserved(s.prefix, key, reserved...); beginning != "" {
		return invalid("key", keys.MustNotBegin(beginning))
	}
	return nil
}

func (s *Service) checkChannel(channel string) error {
	if message := keys.CheckChannel(s.prefix, channel); message != "" {
		return invalid("channel", message)
	}
	return nil
}

func checkText(field, text string, maxChars int) error {
	if text == "" {
		return invalid(field, "must not be empty")
	}
	if len(text) > maxChars && utf8.RuneCountInString(text) > maxChars {
		return invalid(field, "must have at most "+strconv.Itoa(maxChars)+" characters")
	}
	return nil
}

func checkLifetime(ttl time.Duration) error {
	if ttl < time.Millisecond || ttl > maxLifetime {
		return invalid("ttl", "must be from 1 ms to 100 years")
	}
	return nil
}
