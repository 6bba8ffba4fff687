// Package stream has work queues on Redis streams. Each group of workers gets
// every message of a [Stream]; within a group one worker gets it, again after a
// failure, until one has done it or it becomes a dead letter with the reason.
//
// # Promises
//
//   - A message is done at least once: it may come again after a worker, or its
//     connection, was lost. [Once] helps where it must not be done again.
//   - A message that fails each time does not delay the others: after
//     [WorkOptions].MaxDeliveries, or a [Permanent] error, it is a dead letter
//     ([Stream.Dead]), which can be sent again ([Stream.Replay]).
//   - A worker that hangs holds its place until [WorkOptions].Timeout.
//   - A delayed message ([Stream.PublishAt]) is as durable as the stream, is
//     appended once, never early and about a second late at most.
//   - What [Options].MaxLen removes before a group has done it is counted and
//     logged.
//   - Redis away: publishing is an error, or waits in a bounded outbox
//     ([Options].Outbox); workers go on when it is back.
//
// Left to asynq or River are cron, unique messages and priorities.
//
// Messages that everyone who listens gets, without a group, are package pubsub's.
package stream
