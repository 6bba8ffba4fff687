package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// An Update of one field wrote the others back rounded: a whole number in an
// any had become a float64 by then.
func TestUpdate_LeavesWholeNumbersOfOtherFieldsAlone(t *testing.T) {
	const id = int64(1265476890672672808)
	m, err := session.New(open(t), "any", session.Options[map[string]any]{})
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
		m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(m.From(r.Context()), r) })).ServeHTTP(w, r)
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

// plainCart is a codec that is not JSON.
type plainCart struct{}

func (plainCart) ID() byte { return 200 }

func (plainCart) Append(dst []byte, c cart) ([]byte, error) {
	return fmt.Appendf(dst, "%d|%s", c.N, strings.Join(c.Items, "|")), nil
}

func (plainCart) Decode(data []byte) (c cart, err error) {
	n, items, ok := strings.Cut(string(data), "|")
	if !ok {
		return c, errors.New("no number")
	}
	c.Items = strings.Split(items, "|")
	c.N, err = strconv.Atoi(n)
	return c, err
}

func TestCodec_EncodesTheDataAndTheFlashesStay(t *testing.T) {
	r := open(t)
	for name, opt := range map[string]options{"plain": {Codec: plainCart{}}, "sealed": {Codec: plainCart{}, EncryptionKeys: [][]byte{key(1)}}} {
		t.Run(name, func(t *testing.T) {
			m := newNamed(t, r, name, opt)
			s := stored(t, m, "<b>")
			must(t, s.AddFlash(t.Context(), "info", "hello"))
			must(t, s.Login(t.Context(), "alice"))
			must(t, s.Rotate(t.Context()))
			must(t, s.Update(t.Context(), add("c")))
			c, _, err := m.Open(s.Token()).Get(t.Context())
			if err != nil || c.N != 2 || fmt.Sprint(c.Items) != "[<b> c]" {
				t.Errorf("%+v, %v", c, err)
			}
			key, _, _ := m.KeysOf(s.Token())
			raw, err := r.Do(t.Context(), r.B().Hget().Key(key).Field("d").Build()).Message()
			must(t, err)
			if text, _ := raw.ToString(); strings.Contains(text, "2|<b>|c") == (name == "sealed") {
				t.Errorf("stored: %q", text)
			}
			d, _, err := m.Inspect(t.Context(), "alice", s.Handle())
			if err != nil || d.Data != nil || d.Flashes != 1 {
				t.Errorf("inspected: %+v, %v", d, err)
			}
			if flashes, err := s.TakeFlashes(t.Context()); err != nil || len(flashes) != 1 || flashes[0].Text != "hello" {
				t.Errorf("%v, %v", flashes, err)
			}
		})
	}
}

// A session of one codec is undecodable for another, both ways, whatever its bytes.
func TestCodec_DataOfAnotherCodecIsNotRead(t *testing.T) {
	r := open(t)
	var reasons []string
	note := func(_ context.Context, err error) { reasons = append(reasons, err.Error()) }
	asJSON, asText := newManager(t, r, options{OnUndecodable: note}), newManager(t, r, options{Codec: plainCart{}, OnUndecodable: note})
	for from, to := range map[*session.Manager[cart]]*session.Manager[cart]{asJSON: asText, asText: asJSON} {
		token := stored(t, from, "a").Token()
		if alive(t, to, token) || !alive(t, from, token) {
			t.Error("it was read by the other codec, or not by its own")
		}
	}
	if len(reasons) != 2 {
		t.Errorf("reported: %v", reasons)
	}
}

// brokenCart panics on what it does not expect.
type brokenCart struct{ plainCart }

func (brokenCart) Append([]byte, cart) ([]byte, error) { panic("cannot") }

func TestCodec_OneThatPanicsIsAnError(t *testing.T) {
	err := newManager(t, open(t), options{Codec: brokenCart{}}).Open("").Update(t.Context(), add("x"))
	var wrong *madcrow.ArgumentError
	if !errors.As(err, &wrong) {
		t.Errorf("%v", err)
	}
}
