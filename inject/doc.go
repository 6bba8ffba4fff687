// Package inject gives handlers what they need, by the types of their
// parameters: what FastAPI's Depends is to Python, checked by the compiler.
//
//	deps := inject.New(r, logger)
//	users := inject.Value(deps, userCache) // needs Redis, as all values do by default
//	db := inject.Plain(deps, database)     // does not
//	me := inject.PerRequest(deps, currentUser)
//
//	mux.Handle("GET /users/{id}", inject.With(users, getUser))
//	mux.Handle("GET /feed", inject.With2(me, db, feed))
//	mux.Handle("GET /hits", inject.WithOptional(users, hits))
//
//	func getUser(w http.ResponseWriter, r *http.Request, users *cache.Cache[User]) error
//	func hits(w http.ResponseWriter, r *http.Request, users inject.Optional[*cache.Cache[User]]) error
//
// # Promises
//
//   - A required dependency whose Redis is not usable answers 503, as a problem
//     with Retry-After, before the handler runs and without asking anybody. With
//     an optional one the handler runs, and is told.
//   - A dependency can only be had by making it, so one that is missing does not
//     compile; one that was not made panics when the route is made, not when it
//     is asked for.
//   - An error that a handler returns becomes a problem document. Its text stays
//     in the log. Where the handler had begun to answer, the connection is closed
//     instead, if [problem.Writer.Recover] stands around it: nothing else knows.
//   - A value costs a request no allocation and no reflection.
//   - Tests put something else in the place of a dependency ([Override]), for
//     one set of dependencies. Nothing is global.
package inject
