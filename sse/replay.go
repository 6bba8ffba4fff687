package sse

import (
	"context"
	"iter"
	"net/http"

	"github.com/madcrow-go/madcrow/pubsub"
)

// framesFor returns the frames of a request, those after the last that its client
// has: with a history these are the missed ones first.
func (f *feed) framesFor(ctx context.Context, r *http.Request) iter.Seq2[frame, error] {
	return f.frames(ctx, lastEventID(r))
}

// lastEventID returns the position to go on from. The header wins: a browser that comes
// back sends it with the URL of its first connection.
func lastEventID(r *http.Request) pubsub.Position {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("last-event-id")
	}
	p, err := pubsub.ParsePosition(text)
	if err != nil {
		return pubsub.Position{Epoch: "?"} // of no history, so that the history counts as lost
	}
	return p
}
