// Package stream has work queues on Redis streams. Each group of workers gets
// every message of a [Stream]; within a group one worker gets it, again after a
// failure, until one has done it or it becomes a dead letter with the reason.
//
// # Promises
//
//   - A message is done at least once: it may come again after a worker, or its
//     connection, was lost. [Once] helps where it must not be done again.
//   - A message that fails each time does not delay the others: after
//     [WorkOptions].MaxDeliveries it is a dead letter ([Stream.Dead]), which can be
//     sent again ([Stream.Replay]).
//   - What [Options].MaxLen removes before a group has done it is counted and
//     logged.
//   - Redis away: publishing is an error; workers go on when it is back.
//
// Messages that everyone who listens gets, without a group, are package pubsub's.
package stream
