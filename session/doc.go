// Package session keeps typed sessions in Redis.
//
//	sessions, err := session.New(r, "web", session.Options[Cart]{})
//	…
//	http.ListenAndServe(addr, sessions.Middleware(madcrow.FailClosed)(mux))
//
//	func buy(w http.ResponseWriter, r *http.Request) {
//		s := sessions.From(r.Context())
//		err := s.Update(r.Context(), func(c *Cart) error { c.Items = append(c.Items, item); return nil })
//		…
//	}
//
// # Promises
//
//   - The middleware sends no command to Redis before the handler uses the
//     session. The first write stores the session and sends the cookie. A load
//     takes one round trip and a commit one; a load of a session that another
//     process has just ended takes two.
//   - Identifiers are 256 random bits, stored only as their SHA-256. An unknown
//     identifier is never adopted.
//   - A commit replaces exactly the version that it has read. Parallel requests
//     lose no change of each other, also across a login or a rotation, and a late
//     request never revives an ended session.
//   - After Logout, Revoke, RevokeAll or RevokeOthers has returned, no process
//     can read or write the sessions that it ended. A failover of Redis may lose
//     that; Options.WaitReplicas bounds the loss.
//   - Login invalidates the old identifier. Rotate keeps it readable, not
//     writable, for Options.RotationGrace or until the next Rotate or RevokeOthers; in
//     that time a Logout with it ends the session.
//   - Idle and absolute timeouts follow the clock of Redis.
//   - A session that cannot be loaded is an error, or is served as the policy of
//     the route's [Manager.Middleware] allows. It is never treated as absent, and never overwritten.
//   - Why a request has no session is in the log, in the events, and in
//     [Session.Why]; the response does not show it.
//   - Data that cannot be decoded starts a new session and is counted. It does not
//     fail requests until the cookie expires.
//
// # Keys
//
// All keys of one user are in one slot of a cluster. {tag} is two bytes of a
// keyed hash of the user, random before a login:
//
//	<prefix>m1:session:<name>:{tag}:s:<sha-256 of the identifier>  the session
//	<prefix>m1:session:<name>:{tag}:e:<handle of the user>         the epoch
//	<prefix>m1:session:<name>:{tag}:i:<handle of the user>         the sessions of the user
//
// One key belongs to the name alone: see [Manager.CheckSecret].
//
//	<prefix>m1:session:<name>:secret                               fingerprint of the Secret
package session
