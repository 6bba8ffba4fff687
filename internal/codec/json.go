package codec

import (
	"encoding/json"
	"sync"
)

// jsonWriter is an encoder, which cannot be given another writer, and what it
// writes to.
type jsonWriter struct {
	enc *json.Encoder
	out []byte
}

func (w *jsonWriter) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

var jsonWriters = sync.Pool{New: func() any {
	w := &jsonWriter{}
	w.enc = json.NewEncoder(w)
	w.enc.SetEscapeHTML(false)
	return w
}}

// appendJSON encodes v behind dst, without the newline of the encoder. A writer
// whose value panicked is not used again.
func appendJSON(dst []byte, v any) ([]byte, error) {
	w, _ := jsonWriters.Get().(*jsonWriter)
	w.out = dst
	err := w.enc.Encode(v)
	out := w.out
	w.out = nil
	jsonWriters.Put(w)
	if err != nil {
		return nil, err
	}
	return out[:len(out)-1], nil
}
