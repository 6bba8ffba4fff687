package session

import (
	"context"
	"errors"
)

// Flash is a message for the next page that is shown.
type Flash struct {
	// Kind is chosen by the program: "info", "error", …
	Kind string `json:"k,omitempty"`
	Text string `json:"t"`
}

// maxFlashes bounds the messages of a session; the oldest are dropped.
const maxFlashes = 32

// AddFlash stores a message until a TakeFlashes returns it. Of more than 32
// messages the oldest are dropped. It returns the errors of Update, and
// [ErrFastAPILayout].
func (s *Session[T]) AddFlash(ctx context.Context, kind, text string) error {
	if err := s.m.store.extended(); err != nil {
		return s.m.wrap("commit", err)
	}
	return s.update(ctx, func(c *content[T]) error {
		c.Flash = append(c.Flash, Flash{kind, text})
		if n := len(c.Flash) - maxFlashes; n > 0 {
			c.Flash = c.Flash[n:]
		}
		return nil
	})
}

var errNoFlashes = errors.New("no flash messages")

// TakeFlashes returns and removes the messages, oldest first; each message is
// returned to one caller only. It returns the errors of Update. Without messages
// it writes nothing.
func (s *Session[T]) TakeFlashes(ctx context.Context) ([]Flash, error) {
	var taken []Flash
	err := s.update(ctx, func(c *content[T]) error {
		if taken, c.Flash = c.Flash, nil; len(taken) == 0 {
			return errNoFlashes
		}
		return nil
	})
	if errors.Is(err, errNoFlashes) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return taken, nil
}
