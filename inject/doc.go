// Package inject passes dependencies to handlers as typed parameters, like FastAPI's
// Depends, but checked by the compiler.
//
//	deps := inject.New(r, inject.Options{})
//	users := inject.Value(deps, userCache) // needs Redis, the default
//	db := inject.Plain(deps, database)     // does not
//	me := inject.PerRequest(deps, currentUser)
//
//	mux.Handle("GET /users/{id}", inject.With(users, getUser))
//	mux.Handle("GET /feed", inject.With2(me, db, feed))
//	mux.Handle("GET /hits", inject.With(inject.Maybe(users), hits))
//
//	func getUser(w http.ResponseWriter, r *http.Request, users *cache.Cache[User]) error
//	func hits(w http.ResponseWriter, r *http.Request, users inject.Optional[*cache.Cache[User]]) error
//
// # Promises
//
//   - While the Redis of a required dependency is unavailable, the route answers 503,
//     as a problem with Retry-After, before the handler runs and without a command to
//     Redis. With an optional dependency the handler runs and checks it.
//   - A missing dependency does not compile. A zero Dep panics when the route is
//     made, not when it is requested.
//   - An error that a handler returns becomes a problem document. Its text stays in
//     the log. If the response has started, the connection is closed instead; that
//     needs [problem.Writer.Recover] around the handler.
//   - A value costs a request no allocation and no reflection.
//   - Tests replace a dependency of one set ([Override]). Nothing is global.
package inject
