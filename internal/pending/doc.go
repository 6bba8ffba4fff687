// Package pending does later what cannot be done while Redis is away. A
// [Runner] tries again until its work is done: it waits for a usable Redis and
// pauses longer after each failure. A [Queue] is a bounded queue on a Runner,
// whose items leave in order. Both run a goroutine only while something is
// pending.
package pending
