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
	near      *nearCache // nil without Options.NearCacheBytes
	listeners listeners
}

// Options configures a [Service]. The zero value works.
type Options struct {
	// ReservedKeys lets the cache and limit methods use keys that begin with
	// m1:, session:, login_attempts: or rate_limit:, as FastAPI Madcrow does. A client
	// that chooses the key can then read sessions through the cache.
	//
	// Without it these beginnings are refused at the start of the key and
	// after any sign within it, where the prefix of another application may end; "_"
	// and "-" before session:, login_attempts: and rate_limit: are allowed. So
	// shop:session:7 is refused, and user_session:7 is not. A prefix that ends in a
	// letter or a digit is not recognized: let prefixes end in ":".
	//
	// Channels that begin with m1: or __ are always refused. Defaults to false.
	ReservedKeys bool
	// NearCacheBytes keeps the results of GetCache and GetCacheWithTTL in this process,
	// up to that number of bytes, so that the next read needs no round trip. It
	// also keeps that a key is missing.
	//
	// Redis invalidates the entries when any client changes the key (CLIENT TRACKING).
	// An entry that another process has changed may be served until the invalidation
	// arrives, commonly well under a millisecond. Reads of this Service see its own
	// SetCache and DeleteCache at once. Entries are dropped with the connection, and
	// expire no later than in Redis. Without tracking no entries are kept. While Redis is
	// unavailable reads return errors, as without a near cache.
	//
	// Entries live until the Redis is closed: make one Service, not one for each
	// request. Defaults to 0: none.
	NearCacheBytes int64
}

// New returns the facade of r, which must not be nil. The service does not
// close it.
func New(r *madcrow.Redis, options Options) *Service {
	s := &Service{redis: r, prefix: r.Config().KeyPrefix, rawKeys: options.ReservedKeys}
	if options.NearCacheBytes > 0 {
		s.near = newNearCache(r, options.NearCacheBytes)
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
