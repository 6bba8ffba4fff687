// Package service is the facade with the method names of FastAPI Madcrow: a cache,
// sessions, a rate limit and messages, on data that both programs can read and
// write.
//
// Every method makes one round trip, or none with [Options] NearCacheBytes. A missing key is
// a value, not an error. A failed operation is a
// [*madcrow.Error]; an invalid argument is a
// [*madcrow.ArgumentError]. Both describe their HTTP response. While Redis is unavailable
// every method fails at once with madcrow.ErrUnavailable.
//
// In Redis, with Config.KeyPrefix before every key and every channel:
//
//	cache       the key as given     string
//	session     session:{id}         string, one JSON object
//	rate limit  the key as given     sorted set, score = Unix seconds
//	message     the channel          text
//
// Reserved keys and channels are refused under any prefix: see [Options]
// and [Service.Publish].
package service
