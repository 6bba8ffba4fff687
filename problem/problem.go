package problem

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// Codes of the problems that are not specific to a package.
const (
	CodeInternal   = "INTERNAL_ERROR"
	CodeValidation = "VALIDATION_ERROR"
)

// Problem is one problem document. The zero value of every member but Status
// is filled in by [From].
type Problem struct {
	// Type is a URI of the kind of problem. Defaults to "about:blank": the kind
	// is that of Status, and Code is more precise.
	Type string `json:"type" example:"about:blank" doc:"URI of the kind of problem"`
	// Title is the status in words.
	Title string `json:"title" example:"Service Unavailable" doc:"The status in words"`
	// Status is the HTTP status. Defaults to 500.
	Status int `json:"status" example:"503" doc:"HTTP status code"`
	// Detail is for people. Defaults to Message.
	Detail string `json:"detail" doc:"What happened, for people"`
	// Instance names this one occurrence: "urn:uuid:" and the ErrorID.
	Instance string `json:"instance" format:"uri" doc:"This occurrence"`

	// Error is always true: clients of FastAPI Madcrow check it.
	Error bool `json:"error" enum:"true" doc:"Always true"`
	// Code is for programs. Defaults to the status in words (NOT_FOUND), and to
	// INTERNAL_ERROR for 500.
	Code string `json:"code" example:"REDIS_UNAVAILABLE" doc:"What happened, for programs"`
	// Message is for people. It must not hold the text of a foreign error.
	// Defaults to the status in words.
	Message string `json:"message" doc:"What happened, for people"`
	// ErrorID is a random UUID, also found in the log. Defaults to a new one.
	ErrorID string `json:"error_id" format:"uuid" doc:"Identifies this occurrence in the server's log"`
	// Operation and Table name the Redis operation that failed and its kind of
	// data: "get", "redis_cache". Empty for other problems.
	Operation string `json:"operation,omitempty" example:"get" doc:"The operation that failed"`
	Table     string `json:"table,omitempty" example:"redis_cache" doc:"The kind of data it failed on"`
	// Errors are the invalid members of the request.
	Errors []FieldError `json:"errors,omitempty" doc:"The members of the request that are wrong"`
	// ViolatedPolicies names the limits that deny the request. It goes with the
	// types of the Internet-Draft on RateLimit headers.
	ViolatedPolicies []string `json:"violated-policies,omitempty" example:"[\"daily\"]" doc:"The rate limits that deny the request"`

	// RetryAfter, when positive, is sent as the header Retry-After, in whole
	// seconds rounded up.
	RetryAfter time.Duration `json:"-"`
	// Allow and Challenge are sent as the headers Allow and WWW-Authenticate.
	Allow     string `json:"-"`
	Challenge string `json:"-"`
	// Header are further headers of the response, such as RateLimit of a 429. Each
	// replaces what the response has of that name.
	Header http.Header `json:"-"`
}

// FieldError is one invalid member of a request. It never holds the value that
// was sent.
type FieldError struct {
	// Field is the place: "body.key", "query.message".
	Field string `json:"field" example:"body.key" doc:"Where"`
	// Message describes the expected value.
	Message string `json:"message" example:"expected length >= 1" doc:"What is expected"`
}

// Describer is an error that describes its problem. Problem must be safe for
// concurrent use and must not put the text of a foreign error into it.
type Describer interface {
	Problem() Problem
}

// New returns an error with the given problem, for refusals of the server itself.
func New(status int, code, message string) error {
	return With(Problem{Status: status, Code: code, Message: message})
}

// With returns an error with the given problem.
func With(p Problem) error { return described{p} }

// Validation returns the error of a request with invalid members: 422.
func Validation(errs ...FieldError) error {
	return With(Problem{
		Status:  http.StatusUnprocessableEntity,
		Code:    CodeValidation,
		Message: "The request is not valid",
		Errors:  errs,
	})
}

type described struct{ p Problem }

func (d described) Error() string    { return d.p.Code + ": " + d.p.Message }
func (d described) Problem() Problem { return d.p }

// From returns the problem of err, complete and with an id of its own. An
// error that does not describe itself is a 500 with a fixed text.
func From(err error) Problem { return Writer{}.From(err) }

// complete fills in the defaults.
func (p Problem) complete() Problem {
	if p.Status < 400 || p.Status > 599 {
		p.Status = http.StatusInternalServerError
	}
	if p.Code == "" {
		p.Code = CodeInternal
		if text := http.StatusText(p.Status); p.Status != http.StatusInternalServerError && text != "" {
			p.Code = strings.NewReplacer(" ", "_", "-", "_", "'", "").Replace(strings.ToUpper(text))
		}
	}
	if p.Message == "" {
		p.Message = "An unexpected error occurred"
		if text := http.StatusText(p.Status); p.Status != http.StatusInternalServerError && text != "" {
			p.Message = text
		}
	}
	if p.Type == "" {
		p.Type = "about:blank"
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if p.Detail == "" {
		p.Detail = p.Message
	}
	if p.ErrorID == "" {
		p.ErrorID = newID()
	}
	if p.Instance == "" {
		p.Instance = "urn:uuid:" + p.ErrorID
	}
	p.Error = true
	return p
}

// newID returns a random UUID, version 4.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:36], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}
