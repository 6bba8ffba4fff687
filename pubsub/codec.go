package pubsub

import (
	"fmt"

	"github.com/madcrow-go/madcrow/internal/guard"
)

// decodeBy and encodeBy take a codec that panics for one that fails.
func decodeBy[T any](c Codec[T], text string) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the codec: %w", guard.Recovered(p))
		}
	}()
	return c.Decode(text)
}

func encodeBy[T any](c Codec[T], v T) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the codec: %w", guard.Recovered(p))
		}
	}()
	return c.Encode(v)
}
