// Package session keeps typed sessions in Redis.
//
//	sessions, err := session.New[Cart](r, session.Options{})
//	…
//	http.ListenAndServe(addr, sessions.Middleware(session.FailClosed)(mux))
//
//	func buy(w http.ResponseWriter, r *http.Request) {
//		s := sessions.From(r.Context())
//		err := s.Update(r.Context(), func(c *Cart) error { c.Items = append(c.Items, item); return nil })
//		…
//	}
//
// # Promises
//
//   - Nothing is asked of Redis until the session is touched, nothing is stored
//     and no cookie is sent until it is first written. It takes one round trip
//     to load and one to commit; a second one to load what another process has
//     ended since this one read it.
//   - Identifiers are 256 random bits, stored only as their SHA-256. One that is
//     not known is never adopted.
//   - A commit replaces what it has read and nothing else: parallel requests
//     lose nothing of each other, also across a login or a rotation, and a late
//     one never brings a session back that was ended.
//   - After Logout, Revoke, RevokeAll or RevokeOthers has returned, no process
//     can read or write the sessions that it ended, but for what a failover of
//     Redis may lose; Options.WaitReplicas bounds that.
//   - Login and Rotate make a new identifier. After a login the old one is
//     nothing; after a rotation it can read, for Options.Grace and until the next
//     rotation or RevokeOthers, what was there before, and can end the session.
//     Nothing else.
//   - Idle and absolute time-outs are kept by the clock of Redis.
//   - A session that cannot be loaded is an error, or what the route's
//     [Failure] says. It is never taken for none, and never written over.
//   - Data that no longer decodes is a new session and a count, not an error
//     until the cookie dies.
//
// # Keys
//
// Of one user, in one slot of a cluster; {tag} is two bytes of a keyed hash of
// the user, at random before a login:
//
//	<prefix>m1:session:<name>:{tag}:s:<sha-256 of the identifier>  the session
//	<prefix>m1:session:<name>:{tag}:e:<handle of the user>         the epoch
//	<prefix>m1:session:<name>:{tag}:i:<handle of the user>         the sessions of the user
package session
