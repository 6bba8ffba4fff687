// Package health says whether this process may receive requests, and how its Redis
// and its other dependencies are.
//
// Make a [Monitor] with [New]. It has three handlers: [Monitor.Live] (the process
// serves), [Monitor.Ready] (the process may receive requests) and [Monitor.Detail]
// (the state of Redis and of the checks, since when, and why). A database, a queue
// or a disk is a [Check].
//
// No request waits for anything: Redis is watched by its own prober, and checks run
// in the background. A request reads the last results. None of them shows an address
// or the text of an error unless [Options.Details] says so.
//
// A service that works without Redis sets [Options.Optional]. Otherwise an outage of
// Redis takes every process out of its load balancer at the same moment.
package health
