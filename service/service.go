package service

import (
	"github.com/madcrow-go/madcrow"
)

// Service is the facade. It is safe for concurrent use.
type Service struct {
	redis  *madcrow.Redis
	prefix string
	// rawKeys lifts the refusal of reserved beginnings.
	rawKeys   bool
	nearBytes int64
	near      *nearCache // nil without WithNearCache
	listeners listeners
}

// Option configures a [Service].
type Option func(*Service)

// WithReservedKeys lets the cache and limit methods use keys that begin with
// m1:, session:, login_attempts: or rate_limit:, as FastAPI Madcrow does. A client
// that chooses the key can then read sessions through the cache.
//
// Without this option these beginnings are refused at the start of the key and
// after any sign within it, where the prefix of another application may end; "_"
// and "-" before session:, login_attempts: and rate_limit: are allowed. So
// shop:session:7 is refused, and user_session:7 is not. A prefix that ends in a
// letter or a digit is not recognized: let prefixes end in ":".
//
// Channels that begin with m1: or __ are always refused.
func WithReservedKeys() Option { return func(s *Service) { s.rawKeys = true } }

// New returns the facade of r, which must not be nil. The service does not
// close it.
func New(r *madcrow.Redis, opts ...Option) *Service {
	s := &Service{redis: r, prefix: r.Config().KeyPrefix}
	for _, o := range opts {
		o(s)
	}
	if s.nearBytes > 0 {
		s.near = newNearCache(r, s.nearBytes)
	}
	return s
}

// Available reports whether Redis is available now. It sends no command.
func (s *Service) Available() bool { return s.redis.Available() }

// Unavailable returns why Redis is not available, as the error that a call of
// this operation and table would return; nil when it is available.
func (s *Service) Unavailable(operation, table string) error {
	if s.redis.Available() {
		return nil
	}
	err := s.redis.Err()
	if err == nil { // Redis came back between the two calls
		err = madcrow.ErrUnavailable
	}
	return Failed(operation, table, err)
}
