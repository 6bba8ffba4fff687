// Package pubsub sends messages between processes, at three levels of care:
//
//   - A [Topic] tells whoever listens now. What is lost is told: an interruption
//     as a span of time, and, where messages are typed, how many were missed.
//   - A [Recoverable] topic keeps a history. Who was away gets what it missed,
//     in order and once, or is told that the history does not go back so far.
//   - A [Stream] gives each message to one worker of a group, again and again
//     until one has done it, or it is put aside with the reason.
//
// # Promises
//
//   - One server subscription for each distinct channel of a process, however
//     many listen here; it ends with the last of them.
//   - Messages of one channel come in the order in which Redis has them.
//   - A slow subscriber loses its own messages, by the rule that it chose and
//     with a count, and holds up nobody: not the others, not the connection.
//   - A subscription outlives its connection: after a drop, a failover or the
//     move of a slot it is made again, and the gap is told.
//   - Redis away: publishing is an error, or waits in a bounded outbox
//     ([Options.Outbox]) and is sent in order when it is back.
//
// Channels have Config.KeyPrefix before them, as keys have. Those that begin with
// __ or m1: are reserved, see [TopicOptions].
package pubsub
