package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/madcrow-go/madcrow/problem"
)

// OutOfStock is an error of an application that knows its answer.
type OutOfStock struct{ Article string }

func (e OutOfStock) Error() string { return "no " + e.Article + " left in warehouse 7" }

func (e OutOfStock) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusConflict, Code: "OUT_OF_STOCK", Message: "The article is sold out"}
}

func ExampleWrite() {
	for _, err := range []error{
		OutOfStock{"lamp"},
		errors.New("dial tcp 10.1.2.3:6379: connection refused"),
	} {
		w := httptest.NewRecorder()
		problem.Write(w, httptest.NewRequest(http.MethodGet, "/lamp", nil), nil, err)
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			fmt.Println(err)
		}
		fmt.Println(w.Code, p.Code, p.Message)
	}
	// Output:
	// 409 OUT_OF_STOCK The article is sold out
	// 500 INTERNAL_ERROR An unexpected error occurred
}
