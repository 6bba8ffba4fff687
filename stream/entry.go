package stream

import (
	"errors"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
)

// entry is a message as it stands in the stream.
type entry = rueidis.XRangeEntry

// entriesOf reads the reply of XRANGE and its like. Null is none.
func entriesOf(m madcrow.Message) ([]entry, error) {
	if m.IsNil() {
		return nil, nil
	}
	entries, err := m.AsXRange()
	if err != nil {
		return nil, errors.Join(errReply, err)
	}
	return entries, nil
}
