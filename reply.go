package madcrow

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// Reply is what a command returned: a value, the absence of one, or an error. The
// methods that read a value return the error of the call, an [*Error]; so none has
// to be asked for it first. An absent value, as that of a key that does not exist,
// is no error: found is false.
//
// A value of another kind than the method reads is an error, too, which names both.
// The command was applied then.
type Reply struct {
	msg Message
	err *Error
}

func replyOf(msg Message, err *fault.Error) Reply { return Reply{msg: msg, err: publicError(err)} }

// repliesOf are the replies inside one to EXEC.
func repliesOf(msgs []Message) []Reply {
	if msgs == nil {
		return nil
	}
	out := make([]Reply, len(msgs))
	for i, m := range msgs {
		out[i] = elementOf(m)
	}
	return out
}

// elementOf is the reply of one element of an array, which may be an error of Redis.
// Which command it is of is not known here: it may be that of a script that wrote.
func elementOf(m Message) Reply {
	if err := m.Error(); err != nil && !m.IsNil() {
		kind, _ := fault.ClassifyReply(err.Error())
		e := &Error{Op: "reply", Kind: Kind(kind), Err: err}
		if fault.ScriptNotApplied(err.Error()) {
			e.Outcome = OutcomeNotApplied
		}
		return Reply{msg: m, err: e}
	}
	return Reply{msg: m}
}

// Err returns the error of the call, an [*Error], or nil.
func (r Reply) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

// IsNil reports that the call succeeded and there is no value.
func (r Reply) IsNil() bool { return r.err == nil && r.msg.IsNil() }

// Text returns a text, or a number as text.
func (r Reply) Text() (text string, found bool, err error) {
	switch {
	case r.err != nil:
		return "", false, r.err
	case r.msg.IsNil():
		return "", false, nil
	case r.msg.IsInt64():
		n, err := r.msg.ToInt64()
		return strconv.FormatInt(n, 10), err == nil, err
	case r.msg.IsString(), !r.isCompound() && !r.msg.IsBool():
		text, err := r.msg.ToString()
		return text, err == nil, r.wrong("a text", err)
	}
	return "", false, r.wrong("a text", errOther)
}

// Bytes is Text as bytes of the caller's own.
func (r Reply) Bytes() (data []byte, found bool, err error) {
	text, found, err := r.Text()
	if !found {
		return nil, false, err
	}
	return []byte(text), true, nil
}

// Int returns an integer, also one that is a text, as GET has it.
func (r Reply) Int() (n int64, found bool, err error) {
	if r.err != nil || r.msg.IsNil() {
		return 0, false, r.Err()
	}
	n, err = r.msg.AsInt64()
	return n, err == nil, r.wrong("an integer", err)
}

// Float returns a number, also one that is a text.
func (r Reply) Float() (n float64, found bool, err error) {
	switch {
	case r.err != nil || r.msg.IsNil():
		return 0, false, r.Err()
	case r.msg.IsInt64():
		i, err := r.msg.ToInt64()
		return float64(i), err == nil, err
	}
	n, err = r.msg.AsFloat64()
	return n, err == nil, r.wrong("a number", err)
}

// Bool returns whether something is so: an integer that is not 0, or the OK of a
// command that may do nothing otherwise, as SET with NX has it.
func (r Reply) Bool() (yes, found bool, err error) {
	if r.err != nil || r.msg.IsNil() {
		return false, false, r.Err()
	}
	yes, err = r.msg.AsBool()
	return yes, err == nil, r.wrong("a yes or no", err)
}

// Strings returns a list of texts. An absent list is empty, and an absent element an
// empty text: where that matters, as for MGET, read it with [Reply.Slice].
func (r Reply) Strings() ([]string, error) {
	all, err := r.Slice()
	if all == nil || err != nil {
		return nil, err
	}
	out := make([]string, len(all))
	for i := range all {
		if out[i], _, err = all[i].Text(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Map returns fields and their values, as HGETALL has them. An absent one is empty.
func (r Reply) Map() (map[string]string, error) {
	if r.err != nil || r.msg.IsNil() {
		return nil, r.Err()
	}
	fields, err := r.msg.AsStrMap()
	return fields, r.wrong("fields and their values", err)
}

// Slice returns the elements of a list, each of which may be nil or an error of its
// own. An absent list is empty.
func (r Reply) Slice() ([]Reply, error) {
	if r.err != nil || r.msg.IsNil() {
		return nil, r.Err()
	}
	all, err := r.msg.ToArray()
	if err != nil {
		return nil, r.wrong("a list", err)
	}
	return repliesOf(all), nil
}

// Message returns the reply as rueidis has it, for all that Reply has no method for.
// An absent value is [Message].IsNil, and no error.
func (r Reply) Message() (Message, error) { return r.msg, r.Err() }

// errOther is a value that no conversion was tried on.
var errOther = errors.New("it is of another kind")

func (r Reply) isCompound() bool { return r.msg.IsArray() || r.msg.IsMap() }

// wrong is the error of a value that is not of the kind wanted; nil stays nil.
func (r Reply) wrong(wanted string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: "reply", Outcome: OutcomeApplied, Err: fmt.Errorf("%s was to be read, and the reply is %s", wanted, r.kind())}
}

// kind is what the reply is, in words, without its value.
func (r Reply) kind() string {
	switch {
	case r.msg.IsInt64():
		return "an integer"
	case r.msg.IsFloat64():
		return "a number"
	case r.msg.IsBool():
		return "a yes or no"
	case r.msg.IsMap():
		return "fields and their values"
	case r.msg.IsArray():
		return "a list"
	}
	return "a text"
}
