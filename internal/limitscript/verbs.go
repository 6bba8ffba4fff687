package limitscript

// Verb is the first argument of Log, Set, Window, GCRA, Group and Login.
type Verb string

// The verbs. Group knows Peek and Allow alone; Reserve is for GCRA alone.
const (
	VerbPeek    Verb = "0" // decide and count nothing
	VerbAllow   Verb = "1" // count the cost if it is free
	VerbForce   Verb = "2" // count the cost whatever is free
	VerbReserve Verb = "3" // count it if the wait is not longer than the last argument
)

// Mode says how GCRA counts a cost.
type Mode string

// The modes.
const (
	ModeAllOrNone Mode = "0" // the whole cost, or nothing
	ModeReturn    Mode = "1" // give the cost back, up to a full bucket
	ModeForce     Mode = "2" // the cost, down to an empty bucket
	ModeUpTo      Mode = "3" // as much of the cost as is free
)

// LeaseVerb is the first argument of Lease.
type LeaseVerb string

// The verbs of leases.
const (
	LeasePeek    LeaseVerb = "0"
	LeaseAcquire LeaseVerb = "1"
	LeaseRenew   LeaseVerb = "2"
	LeaseRelease LeaseVerb = "3"
)
