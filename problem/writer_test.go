package problem_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/problem"
)

type foreign struct{ table string }

func (e *foreign) Error() string { return "foreign: " + e.table }

type own struct{}

func (own) Error() string { return "own" }
func (own) Problem() problem.Problem {
	return problem.Problem{Status: 409, Code: "OWN", Message: "own"}
}

func TestWriter_TheFirstRuleThatKnowsDecidesThenTheErrorItself(t *testing.T) {
	f := problem.Writer{Rules: []problem.Rule{
		problem.Is(sql.ErrNoRows, problem.Problem{Status: 404, Code: "NO_ROW"}),
		problem.As(func(e *foreign) problem.Problem { return problem.Problem{Status: 400, Code: "FOREIGN", Table: e.table} }),
		problem.Is(sql.ErrNoRows, problem.Problem{Status: 410, Code: "SECOND"}),
	}}
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{fmt.Errorf("outer: %w", sql.ErrNoRows), 404, "NO_ROW"},
		{fmt.Errorf("outer: %w", &foreign{"t"}), 400, "FOREIGN"},
		{own{}, 409, "OWN"},
		{errors.Join(own{}, sql.ErrNoRows), 404, "NO_ROW"},
		{errors.New("else"), 500, problem.CodeInternal},
		{nil, 500, problem.CodeInternal},
	} {
		p := f.From(tc.err)
		if p.Status != tc.status || p.Code != tc.code || p.ErrorID == "" || p.Title != http.StatusText(tc.status) {
			t.Errorf("%v: %+v", tc.err, p)
		}
	}
	if p := f.From(&foreign{"t"}); p.Table != "t" {
		t.Errorf("describe did not see the error: %+v", p)
	}
}

func TestByItself_ComesBeforeTheRulesAfterIt(t *testing.T) {
	f := problem.Writer{Rules: []problem.Rule{
		problem.ByItself,
		func(error) (problem.Problem, bool) { return problem.Problem{Status: 418}, true },
	}}
	if p := f.From(fmt.Errorf("outer: %w", own{})); p.Code != "OWN" {
		t.Errorf("%+v", p)
	}
	if p := f.From(errors.New("else")); p.Status != 418 {
		t.Errorf("%+v", p)
	}
}

func TestWriter_DetailIsTheErrorsTextOnlyInDebug(t *testing.T) {
	err := errors.New("dial tcp 10.1.2.3:6379: refused")
	for _, debug := range []bool{false, true} {
		f := problem.Writer{Debug: debug}
		w := httptest.NewRecorder()
		f.Write(w, httptest.NewRequest("GET", "/", nil), err)
		var p problem.Problem
		if e := json.Unmarshal(w.Body.Bytes(), &p); e != nil {
			t.Fatal(e)
		}
		if shown := strings.Contains(w.Body.String(), "10.1.2.3"); shown != debug || p.Message != "An unexpected error occurred" {
			t.Errorf("debug %v: %s", debug, w.Body)
		}
		w = httptest.NewRecorder()
		f.Recover(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("in a handler") })).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if shown := strings.Contains(w.Body.String(), "in a handler"); shown != debug || w.Code != 500 {
			t.Errorf("debug %v: %d %s", debug, w.Code, w.Body)
		}
	}
}

func TestFrom_AStatusAloneIsAProblem(t *testing.T) {
	for status, want := range map[int]string{404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 418: "IM_A_TEAPOT", 500: problem.CodeInternal, 599: problem.CodeInternal, 0: problem.CodeInternal} {
		p := problem.From(problem.With(problem.Problem{Status: status}))
		if p.Code != want || p.Message == "" {
			t.Errorf("%d: %+v", status, p)
		}
	}
}

func ExampleWriter() {
	problems := problem.Writer{Rules: []problem.Rule{
		problem.Is(sql.ErrNoRows, problem.Problem{Status: http.StatusNotFound, Code: "NOT_FOUND", Message: "There is no such order"}),
	}}
	p := problems.From(fmt.Errorf("load order 7: %w", sql.ErrNoRows))
	fmt.Println(p.Status, p.Code, p.Message)
	// Output: 404 NOT_FOUND There is no such order
}

// Without a logger the error_id of a response was in no log.
func TestWrite_WithoutALoggerUsesThatOfTheMiddlewareOutside(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	fails := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("oh")
		}
		problem.Write(w, r, nil, errors.New("the cause"))
	})
	for _, h := range []http.Handler{problem.Recover(logger)(fails), problem.Recover(logger)(problem.Recover(nil)(fails))} {
		for path, cause := range map[string]string{"/": "the cause", "/panic": "panic: oh"} {
			log.Reset()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			var body problem.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || strings.Count(log.String(), body.ErrorID) != 1 || !strings.Contains(log.String(), cause) {
				t.Errorf("%s: %v, %s is in %q", path, err, body.ErrorID, log.String())
			}
			if path == "/panic" && !strings.Contains(log.String(), "writer_test.go") {
				t.Error("no stack")
			}
		}
	}
	w := httptest.NewRecorder()
	if problem.Write(w, httptest.NewRequest("GET", "/", nil), nil, errors.New("x")); w.Code != 500 {
		t.Errorf("without any logger: %d", w.Code)
	}
}
