// Package service is the facade with the method names of the Python original:
// a cache, sessions, a rate limit and messages, on data that both programs can
// read and write.
//
// Every method makes one round trip, or none with [WithNearCache], reports
// failure as an error and absence as absence. An error of Redis is an [*Error],
// which wraps the one of package madcrow; a wrong argument is a
// [*ValidationError]. Both know their HTTP answer. When Redis is away every method fails at once with
// madcrow.ErrUnavailable.
//
// In Redis, with Config.KeyPrefix before every key and every channel:
//
//	cache       the key as given     string
//	session     session:{id}         string, one JSON object
//	rate limit  the key as given     sorted set, score = Unix seconds
//	message     the channel          text
//
// Keys and channels that belong to others are refused, under whatever prefix:
// see [WithReservedKeys] and [Service.Publish].
package service
