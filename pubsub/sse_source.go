package pubsub

import (
	"context"
	"encoding/json"
	"iter"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/guard"
)

// Source is what can be served as server-sent events: a [*Recoverable],
// a [*Topic], a [*Topics] or a [*Pattern].
type Source[T any] interface {
	bus() *Bus
	// events yields what a subscriber is told. Without a history the place to
	// begin at has no meaning.
	events(ctx context.Context, after Position, how []SubscribeOption) iter.Seq2[told[T], error]
}

// told is what any source tells.
type told[T any] struct {
	Event[T]
	at Position
}

func (t *Recoverable[T]) bus() *Bus { return t.b }
func (t *Topic[T]) bus() *Bus       { return t.b }
func (t *Topics[T]) bus() *Bus      { return t.b }
func (p *Pattern[T]) bus() *Bus     { return p.b }

func (t *Recoverable[T]) events(ctx context.Context, after Position, how []SubscribeOption) iter.Seq2[told[T], error] {
	return func(yield func(told[T], error) bool) {
		for e, err := range t.Subscribe(ctx, after, how...) {
			if !yield(told[T]{Event[T]{Kind: e.Kind, Channel: t.name, Message: e.Message, Err: e.Err}, e.Position}, err) {
				return
			}
		}
	}
}

func (t *Topic[T]) events(ctx context.Context, _ Position, how []SubscribeOption) iter.Seq2[told[T], error] {
	return toldOf(t.Subscribe(ctx, how...))
}

func (t *Topics[T]) events(ctx context.Context, _ Position, how []SubscribeOption) iter.Seq2[told[T], error] {
	return toldOf(t.Subscribe(ctx, how...))
}

func (p *Pattern[T]) events(ctx context.Context, _ Position, how []SubscribeOption) iter.Seq2[told[T], error] {
	return toldOf(p.Subscribe(ctx, how...))
}

func toldOf[T any](events iter.Seq2[Event[T], error]) iter.Seq2[told[T], error] {
	return func(yield func(told[T], error) bool) {
		for e, err := range events {
			if !yield(told[T]{Event: e}, err) {
				return
			}
		}
	}
}

// frame is one event on the wire.
type frame struct{ id, event, data string }

// append adds it to b. A line break of the data, whichever it is, begins a
// further data line: left alone it would end the event, and what follows would
// be read as one of the sender's choice.
func (f frame) append(b []byte) []byte {
	if f.id != "" && !strings.ContainsAny(f.id, "\r\n\x00") {
		b = append(append(append(b, "id: "...), f.id...), '\n')
	}
	if f.event != "" {
		b = append(append(append(b, "event: "...), f.event...), '\n')
	}
	for data, more := f.data, true; more; {
		line := data
		at := strings.IndexAny(data, "\r\n")
		if more = at >= 0; more {
			line = data[:at]
			if strings.HasPrefix(data[at:], "\r\n") {
				at++
			}
			data = data[at+1:]
		}
		b = append(append(append(b, "data: "...), line...), '\n')
	}
	return append(b, '\n')
}

// frameOf says what is told in the form of the wire.
func frameOf[T any](e told[T], encode func(string, T) (string, error)) frame {
	f := frame{id: e.at.String(), data: "{}"}
	switch e.Kind {
	case EventMessage:
		if e.Err == nil {
			var data string
			err := guard.Call(func() (err error) {
				data, err = encode(e.Channel, e.Message)
				return err
			})
			if err == nil {
				f.data = data
				return f
			}
		}
		f.event = "malformed"
	case EventGap:
		f.event = e.Kind.String()
		f.data = jsonText(map[string]any{"since": e.Since.UTC(), "until": e.Until.UTC(), "seconds": e.Until.Sub(e.Since).Round(time.Millisecond).Seconds()})
	case EventMissed, EventDropped:
		f.event = e.Kind.String()
		f.data = jsonText(map[string]any{"n": e.N})
	default:
		f.event = e.Kind.String()
	}
	return f
}

func jsonText(v any) string {
	text, _ := json.Marshal(v) // of numbers and times: it cannot fail
	return string(text)
}

// defaultEncode leaves strings as they are.
func defaultEncode[T any](_ string, v T) (string, error) {
	if text, ok := any(v).(string); ok {
		return text, nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}
