package session_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/madcrow-go/madcrow/session"
)

// An Update of one field wrote the others back rounded: a whole number in an
// any had become a float64 by then.
func TestUpdate_LeavesWholeNumbersOfOtherFieldsAlone(t *testing.T) {
	const id = int64(1265476890672672808)
	m, err := session.New[map[string]any](open(t), session.Options{Name: "any"})
	if err != nil {
		t.Fatal(err)
	}
	var cookie *http.Cookie
	request := func(do func(s *session.Session[map[string]any], r *http.Request)) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "https://shop.example/", nil)
		if cookie != nil {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		m.Middleware(session.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(m.From(r.Context()), r) })).ServeHTTP(w, r)
		for _, c := range w.Result().Cookies() {
			cookie = c
		}
	}
	set := func(key string, v any) {
		t.Helper()
		request(func(s *session.Session[map[string]any], r *http.Request) {
			if err := s.Update(r.Context(), func(data *map[string]any) error {
				if *data == nil {
					*data = map[string]any{}
				}
				(*data)[key] = v
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	set("id", id)
	set("theme", "dark")
	set("count", 2)
	request(func(s *session.Session[map[string]any], r *http.Request) {
		got, _, err := s.Get(r.Context())
		want := map[string]any{"id": json.Number("1265476890672672808"), "theme": "dark", "count": 2.0}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%#v, %v", got, err)
		}
	})
}
