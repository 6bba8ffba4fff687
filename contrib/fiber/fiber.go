package madcrowfiber

import (
	"net/http"
	"slices"

	"github.com/gofiber/fiber/v3"

	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
)

// ErrorHandler answers errors with problems: those of handlers that were not
// made here, and Fiber's own, such as 404. Fiber's default shows their text.
func ErrorHandler(s *inject.Set) fiber.ErrorHandler {
	problems := s.Problems()
	// The message of Fiber's errors is for the caller.
	problems.Rules = append(slices.Clip(problems.Rules), problem.As(func(e *fiber.Error) problem.Problem { return problem.Problem{Status: e.Code, Message: e.Message} }))
	return func(c fiber.Ctx, err error) error {
		return answer(c, func(w *writer) error {
			problems.Write(w, request(c), err)
			return nil
		})
	}
}

// Handler is a handler without dependencies whose error becomes a problem.
func Handler(s *inject.Set, h func(fiber.Ctx) error) fiber.Handler {
	answer := ErrorHandler(s)
	return func(c fiber.Ctx) error {
		if err := h(c); err != nil {
			return answer(c, err)
		}
		return nil
	}
}

// With makes a handler of a function that needs a. Use [inject.Maybe] for what
// is optional.
func With[A any](a inject.Dep[A], h func(fiber.Ctx, A) error) fiber.Handler {
	return Handler(a.Set(), func(c fiber.Ctx) error {
		var r *http.Request
		if a.PerRequest() {
			r = inject.Scoped(request(c))
			c.SetContext(r.Context())
		}
		v, err := inject.Get(r, a)
		if err != nil {
			return err
		}
		return h(c, v)
	})
}

// With2 is With for two dependencies.
func With2[A, B any](a inject.Dep[A], b inject.Dep[B], h func(fiber.Ctx, A, B) error) fiber.Handler {
	return With(inject.Join(a, b), func(c fiber.Ctx, v inject.Pair[A, B]) error { return h(c, v.A, v.B) })
}

// With3 is With for three dependencies.
func With3[A, B, C any](a inject.Dep[A], b inject.Dep[B], d inject.Dep[C], h func(fiber.Ctx, A, B, C) error) fiber.Handler {
	return With2(inject.Join(a, b), d, func(c fiber.Ctx, v inject.Pair[A, B], vd C) error { return h(c, v.A, v.B, vd) })
}

// Health adds the routes /health/live, /health/ready and /health of a
// [health.Monitor]. Redis is not asked.
func Health(app fiber.Router, m *health.Monitor) {
	app.Get("/health/live", m.Live()).Get("/health/ready", m.Ready()).Get("/health", m.Detail())
}
