package main

import (
	"encoding/json"
	"net/http"

	"github.com/madcrow-go/madcrow/problem"
)

var (
	errNotFound = problem.New(http.StatusNotFound, "NOT_FOUND", "There is no such thing")
	errBody     = problem.Validation(problem.FieldError{Field: "body", Message: "cannot be read as JSON of the right form"})
)

// decode reads the body of a request.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if d.Decode(into) != nil {
		return errBody
	}
	return nil
}

// reply sends v as JSON.
func reply(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error is the client's, which is gone
	return nil
}
