package guard_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/guard"
)

// badText cannot say what it is: one that ends the goroutine, one whose panic
// panics again.
type badText struct{ exits bool }

func (b badText) Error() string {
	if b.exits {
		runtime.Goexit()
	}
	panic(b)
}

func TestText_IsMadeOfWhateverHasNone(t *testing.T) {
	for _, v := range []any{badText{}, badText{exits: true}} {
		if text := guard.Text(v); text == "" {
			t.Errorf("%#v has no text", v)
		}
	}
	if text := guard.Text(errors.New("why")); text != "why" {
		t.Error(text)
	}
}

func TestApart_SurvivesPanicAndGoexit(t *testing.T) {
	if err := guard.Apart(func() error { runtime.Goexit(); return nil }); !errors.Is(err, guard.ErrGoexit) {
		t.Error(err)
	}
	var p *guard.Panic
	if err := guard.Apart(func() error { panic(badText{}) }); !errors.As(err, &p) || !strings.Contains(p.Stack, "guard_test") {
		t.Errorf("%v %+v", err, p)
	}
	why := errors.New("why")
	if err := guard.Apart(func() error { return why }); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestRecovered_PlaceIsWhereItPanicked(t *testing.T) {
	var none *struct{ n int }
	for name, fn := range map[string]func() error{
		"a panic":       func() error { panic("boom") },
		"a nil pointer": func() error { none.n++; return nil },
	} {
		var first, again *guard.Panic
		if !errors.As(guard.Call(fn), &first) || !errors.As(guard.Call(fn), &again) || first.Place != again.Place {
			t.Errorf("%s: %+v, %+v", name, first, again)
		}
		if !strings.Contains(first.Place, "TestRecovered_PlaceIsWhereItPanicked.func") {
			t.Errorf("%s: %s", name, first.Place)
		}
	}
}

// loud is a handler that calls what it logs, as some do without a net.
type loud struct{ slog.Handler }

func (l loud) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			_ = err.Error()
		}
		return true
	})
	return l.Handler.Handle(ctx, r)
}

func TestLogger_LineOfAnErrorWithoutTextIsLoggedWithoutIt(t *testing.T) {
	var out bytes.Buffer
	log := guard.Logger(slog.New(loud{slog.NewTextHandler(&out, nil)}))
	log.Warn("a panic", "reason", badText{})
	log.Warn("an exit", "reason", badText{exits: true})
	log.Warn("well", "reason", errors.New("why"))
	for _, want := range []string{"a panic", "an exit", "reason=why"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
}
