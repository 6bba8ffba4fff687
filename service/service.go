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
	near      *nearCache // nil: none
	listeners listeners
}

// Option changes what [New] makes.
type Option func(*Service)

// WithReservedKeys lets the cache and limit methods use keys that begin with
// m1:, session:, login_attempts: or rate_limit:, as the original does. Whoever
// may choose the key can then read sessions through the cache.
//
// Without it these beginnings are refused, also where a prefix of another
// application on the same Redis may end before them: after any sign, but for
// "_" and "-" before names of the original. So shop:session:7 is refused, and
// user_session:7 is not. A prefix that ends in a letter or a digit cannot be
// seen: let prefixes end in ":".
//
// Channels that begin with m1: or __ are refused in any case.
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

// Available says whether a call made now would be sent. It asks nobody.
func (s *Service) Available() bool { return s.redis.Available() }

// Unavailable returns why Redis is not available, as the error that a call of
// this operation and table would return; nil when it is available.
func (s *Service) Unavailable(operation, table string) error {
	if s.redis.Available() {
		return nil
	}
	err := s.redis.Err()
	if err == nil { // it came back in between; the verdict stands
		err = madcrow.ErrUnavailable
	}
	return &Error{Operation: operation, Table: table, Err: err}
}
