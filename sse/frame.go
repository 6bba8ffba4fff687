package sse

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/pubsub"
)

// frame is one event as it is sent.
type frame struct{ id, event, data string }

// appendTo adds it to b. A line break of the data, whichever it is, begins a
// further data line: left alone it would end the event, and what follows would
// be read as one of the sender's choice.
func (f frame) appendTo(b []byte) []byte {
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

// frameOf makes the frame of an event.
func frameOf[T any](e pubsub.Event[T], encode func(string, T) (string, error)) frame {
	f := frame{id: e.Position.String(), data: "{}"}
	switch e.Kind {
	case pubsub.EventMessage:
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
	case pubsub.EventGap:
		f.event = e.Kind.String()
		f.data = jsonText(map[string]any{"since": e.Since.UTC(), "until": e.Until.UTC(), "seconds": e.Until.Sub(e.Since).Round(time.Millisecond).Seconds()})
	case pubsub.EventMissed, pubsub.EventDropped:
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
