// Package madcrowfiber is Madcrow for Fiber, version 3: sessions, limits,
// dependencies of handlers, problems and health.
//
//	app := fiber.New(fiber.Config{ErrorHandler: madcrowfiber.ErrorHandler(deps)})
//	app.Use(madcrowfiber.Middleware(deps.Problems().Recover))
//	app.Use(madcrowfiber.Middleware(sessions.Middleware(madcrow.FailClosed)))
//	app.Get("/users/:id", madcrowfiber.With(users, getUser))
//	madcrowfiber.Health(app, monitor)
//
//	func getUser(c fiber.Ctx, users *cache.Cache[User]) error
//
// What package inject promises holds here too: 503 with Retry-After before the
// handler runs where Redis is required and not usable; an error that is returned
// becomes a problem; a dependency that was not made panics when the route is
// made. A session is found by the context that goes with the request:
// sessions.From(c.Context()).
//
// Fiber is not built on net/http. A middleware and a dependency that is built
// for each request get an http.Request made of Fiber's, with strings of its own,
// for Fiber uses the memory of a request again. Each costs about 2 µs and 34
// allocations for a request of five headers (BenchmarkMiddleware). Values
// ([inject.Value]) need none. A handler's context does not end when its caller
// leaves: Fiber does not tell.
//
// Use Middleware with Recover: a panic ends a program of Fiber otherwise. One
// with [http.ErrAbortHandler] closes the connection, as in net/http. What
// [fiber.Ctx.SendStreamWriter] is given runs after the middlewares, so a session
// must be changed before. A limit with ratelimit.MiddlewareOptions.Routes or ByPath stands on the
// route: by Use Fiber does not know it yet.
package madcrowfiber
