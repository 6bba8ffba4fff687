package service

import (
	"bytes"
	"context"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// defaultSessionLifetime is the lifetime of a session stored with a ttl of 0.
const defaultSessionLifetime = time.Hour

const (
	sessionPrefix = "session:"
	// maxSessionID is generous: an id is made by programs.
	maxSessionID = 255
)

// GetSession returns the JSON object of session id, byte for byte as it is
// stored. A missing session is (nil, false, nil). Data that is no JSON object
// is a [*madcrow.Error] with [ErrCorrupt].
func (s *Service) GetSession(ctx context.Context, id string) (data json.RawMessage, found bool, err error) {
	if err := checkText("session_id", id, maxSessionID); err != nil {
		return nil, false, err
	}
	key := s.prefix + sessionPrefix + id
	m, err := s.redis.Do(ctx, s.redis.B().Get().Key(key).Build()).Message()
	if err != nil {
		return nil, false, Failed("get", TableSessions, err)
	}
	if m.IsNil() {
		return nil, false, nil
	}
	data, err = m.AsBytes()
	if err == nil && !isObject(data) {
		err = ErrCorrupt
	}
	if err != nil {
		return nil, false, Failed("get", TableSessions, err)
	}
	return data, true, nil
}

// SetSession stores data, which must become one JSON object, as session id for
// ttl; 0 means 1 hour. A [json.RawMessage] keeps its numbers
// and its order of members.
func (s *Service) SetSession(ctx context.Context, id string, data any, ttl time.Duration) error {
	if err := checkText("session_id", id, maxSessionID); err != nil {
		return err
	}
	if ttl == 0 {
		ttl = defaultSessionLifetime
	}
	if err := checkLifetime(ttl); err != nil {
		return err
	}
	text, err := encodeObject(data)
	if err != nil {
		return err
	}
	return Failed("set", TableSessions, s.set(ctx, s.prefix+sessionPrefix+id, text, ttl))
}

// DeleteSession removes session id and reports whether it existed.
func (s *Service) DeleteSession(ctx context.Context, id string) (existed bool, err error) {
	if err := checkText("session_id", id, maxSessionID); err != nil {
		return false, err
	}
	existed, err = s.del(ctx, s.prefix+sessionPrefix+id)
	return existed, Failed("delete", TableSessions, err)
}

// encodeObject writes plain JSON: no HTML escapes, no newline at the end, as
// other JSON readers expect it.
func encodeObject(data any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return "", invalid("data", "must be a JSON object")
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(text) == 0 || text[0] != '{' || !utf8.Valid(text) { // a RawMessage may not be
		return "", invalid("data", "must be a JSON object")
	}
	return string(text), nil
}

func isObject(data []byte) bool {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(data)
}
