// Package sse serves the messages of a topic of package pubsub as server-sent
// events (the browser's EventSource) over net/http. With a [pubsub.Recoverable] a
// browser that comes back gets what it missed.
package sse
