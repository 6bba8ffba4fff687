// Package pubsub sends messages between processes, at two levels of care:
//
//   - A [Topic] delivers to the subscribers of the moment. Losses are reported: an
//     interruption as a span of time, and, for typed messages, the number missed.
//   - A [Recoverable] topic keeps a history. A subscriber that was away gets the
//     messages that it missed, in order and once, or [EventHistoryLost] when the
//     history does not go back so far.
//
// Work queues are package stream, server-sent events package sse.
//
// # Promises
//
//   - One server subscription for each distinct channel of a process, however
//     many local subscribers it has; it ends with the last of them.
//   - Messages of one channel come in the order in which Redis has them.
//   - A slow subscriber loses its own messages, by the rule that it chose and
//     with a count, and delays neither other subscribers nor the connection.
//   - A subscription outlives its connection: after a drop, a failover or the
//     move of a slot it is restored, and the gap is reported.
//   - Redis away: publishing is an error, or waits in a bounded outbox
//     ([Options.Outbox]) and is sent in order when it is back.
//
// Channels have Config.KeyPrefix before them, as keys have. Those that begin with
// __ or m1: are reserved, see [TopicOptions].
package pubsub
