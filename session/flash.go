package session

import (
	"context"
	"errors"
)

// Flash is a message for the next page that is shown.
type Flash struct {
	// Kind is the program's: "info", "error", …
	Kind string `json:"k,omitempty"`
	Text string `json:"t"`
}

// maxFlashes bounds those that nobody takes.
const maxFlashes = 32

// AddFlash keeps a message until somebody takes it. Of more than 32 the oldest
// are dropped. Errors are those of Update, and [ErrOriginal].
func (s *Session[T]) AddFlash(ctx context.Context, kind, text string) error {
	if s.m.opt.Original {
		return &Error{Op: "commit", Err: ErrOriginal}
	}
	return s.update(ctx, func(c *content[T]) error {
		c.Flash = append(c.Flash, Flash{kind, text})
		if n := len(c.Flash) - maxFlashes; n > 0 {
			c.Flash = c.Flash[n:]
		}
		return nil
	})
}

var errNothing = errors.New("nothing to take")

// TakeFlashes returns the messages, each to one caller alone, oldest first.
// Errors are those of Update; without messages nothing is written.
func (s *Session[T]) TakeFlashes(ctx context.Context) ([]Flash, error) {
	var taken []Flash
	err := s.update(ctx, func(c *content[T]) error {
		if taken, c.Flash = c.Flash, nil; len(taken) == 0 {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return taken, nil
}
