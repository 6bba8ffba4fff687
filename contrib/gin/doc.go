// Package madcrowgin is Madcrow for gin: sessions, limits, dependencies of
// handlers, problems and health.
//
//	router := gin.New()
//	router.Use(madcrowgin.Middleware(deps.Problems().Recover))
//	router.Use(madcrowgin.Middleware(sessions.Middleware(madcrow.FailClosed)))
//	router.GET("/users/:id", madcrowgin.With(users, getUser))
//	madcrowgin.Health(router, monitor)
//
//	func getUser(c *gin.Context, users *cache.Cache[User]) error
//
// What package inject promises holds here too: 503 with Retry-After before the
// handler runs where Redis is required and not usable; an error that is returned
// becomes a problem, and closes the connection where the handler had begun to
// answer; a dependency that was not made panics when the route is made. A session
// is found by the context of the request: sessions.From(c.Request.Context()).
//
// What gin finds wrong with a body is an error like others; a rule makes a
// problem of it:
//
//	problem.As(func(e validator.ValidationErrors) problem.Problem { … })
package madcrowgin
