package madcrow

import (
	"sync"

	"github.com/madcrow-go/madcrow/internal/sealed"
)

// attached is what the packages of this module keep once for each Redis. It lives
// as long as the Redis.
type attached struct {
	mu sync.Mutex
	of map[any]any
}

// Attached returns what is attached to the Redis under key, made by create at the
// first call. Only the packages of this module can call it: a registry of theirs
// is then gone with its Redis, and not held by a global variable.
func (r *Redis) Attached(_ sealed.Key, key any, create func() any) any {
	r.attached.mu.Lock()
	defer r.attached.mu.Unlock()
	v, ok := r.attached.of[key]
	if !ok {
		if r.attached.of == nil {
			r.attached.of = map[any]any{}
		}
		v = create()
		r.attached.of[key] = v
	}
	return v
}
