package session

import (
	"context"
	"encoding/json"
	"time"
)

// Details is one session as [Manager.Inspect] finds it.
type Details struct {
	Info
	// Left is how long it lives if it is not used. A session of the FastAPI layout
	// without an expiry reports Options.IdleTimeout.
	Left time.Duration
	// Remember is true if its cookie outlives the browser.
	Remember bool
	// Changes counts the writes, the first one included.
	Changes int64
	// Flashes is how many messages wait to be shown.
	Flashes int
	// Size of the stored data in bytes, and whether it is encrypted.
	Size   int
	Sealed bool
	// Data is the T as JSON, whatever T is here. It is nil if none of the keys
	// decrypts it, if it is not JSON, and with Options.Codec.
	Data json.RawMessage
}

// Inspect returns the details of one session of a user, by its handle, without
// using it: its life is not prolonged. A session of another user is not found. With
// Options.FastAPILayout user is "", handle is the identifier, and Info has only the
// Handle. Inspect takes three round trips.
func (m *Manager[T]) Inspect(ctx context.Context, user, handle string) (d Details, found bool, err error) {
	if m.store.extended() == nil {
		if err := m.checkUser("inspect", user); err != nil {
			return d, false, err
		}
	}
	d, data, found, err := m.store.inspect(ctx, user, handle)
	if err != nil || !found {
		if err == nil {
			m.secret.compare(ctx, false)
		}
		return Details{}, false, m.wrap("inspect", err)
	}
	m.codec.inspect(&d, data, user)
	return d, true, nil
}
