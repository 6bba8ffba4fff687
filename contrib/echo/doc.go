// Package madcrowecho is Madcrow for Echo: sessions, limits, dependencies of
// handlers, problems and health.
//
//	e := echo.New()
//	e.HTTPErrorHandler = madcrowecho.ErrorHandler(deps)
//	e.Use(madcrowecho.Middleware(deps.Problems().Recover))
//	e.Use(madcrowecho.Middleware(sessions.Middleware(madcrow.FailClosed)))
//	e.GET("/users/:id", madcrowecho.With(users, getUser))
//	madcrowecho.Health(e, monitor)
//
//	func getUser(c *echo.Context, users *cache.Cache[User]) error
//
// What package inject promises holds here too: 503 with Retry-After before the
// handler runs where Redis is required and not usable; an error that is returned
// becomes a problem, and closes the connection where the handler had begun to
// answer; a dependency that was not made panics when the route is made. A session
// is found by the context of the request: sessions.From(c.Request().Context()).
//
// It is for version 5 of Echo, not for version 4: new features come to 5 alone,
// the support of 4 ends, and 5 speaks net/http (its response is an
// http.ResponseWriter) and log/slog as Madcrow does. The two have different
// types of context, so one adapter cannot serve both.
package madcrowecho
