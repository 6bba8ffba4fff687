// Package madcrowhuma is Madcrow for huma on net/http (humago): dependencies as
// fields of a typed input, problems, limits and sessions for each operation,
// health, all of it in the OpenAPI document.
//
//	cfg := huma.DefaultConfig("Users", "1.0.0")
//	cfg.Transformers = append(cfg.Transformers, madcrowhuma.Problems(deps))
//	api := humago.New(mux, cfg)
//
//	type GetUser struct {
//		ID    string `path:"id"`
//		Users madcrowhuma.Required[*cache.Cache[User]] // 503 where it cannot be used
//		Hits  madcrowhuma.Optional[*Counter]           // empty where it cannot
//	}
//
//	op := huma.Operation{Method: "GET", Path: "/users/{id}"}
//	madcrowhuma.Register(deps, api, madcrowhuma.Limited(op, limited), getUser)
//
// A field, of the input or of a struct in it, is the one dependency of its type
// that the set has ([inject.Find]); Register panics where there is none, or more
// than one, and for a field that is not exported. An operation with a
// required field is answered with 503 and Retry-After before its body is read;
// the OpenAPI document says so, and 429 where a limit stands.
//
// Errors of huma keep their status and headers (huma.ErrorWithHeaders); one below
// 400, as huma.Status304NotModified, is huma's to answer.
//
// What huma itself finds wrong with a request is a problem, too, and does not
// repeat what was sent. Nothing of huma that is global is changed. A session
// for all operations stands around the mux, and so does [problem.Writer.Recover];
// [Middleware] carries one to a single operation. The handlers of package health
// go onto the mux.
package madcrowhuma
