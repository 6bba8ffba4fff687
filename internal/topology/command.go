package topology

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// Class says how a command must travel.
type Class uint8

const (
	ClassPlain  Class = iota
	ClassBlocks       // waits in Redis: a connection of its own
	classState        // changes the connection for all who share it: refused
	classBegin        // MULTI: only together with its EXEC
	classEnd          // EXEC, DISCARD
)

// ClassOf knows the commands that must not travel like others. Those of the
// Builder are in upper case and marked; Arbitrary takes anything.
func ClassOf(args []string) Class {
	op := args[0]
	for i := range len(op) {
		if op[i] >= 'a' && op[i] <= 'z' {
			op = strings.ToUpper(op)
			break
		}
	}
	switch op {
	case "MULTI":
		return classBegin
	case "EXEC", "DISCARD":
		return classEnd
	case "MONITOR", "SYNC", "PSYNC", "RESET", "QUIT", "HELLO", "AUTH", "SELECT", "WATCH", "UNWATCH", "READONLY", "READWRITE",
		"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE":
		return classState
	case "CLIENT":
		if len(args) > 1 {
			switch strings.ToUpper(args[1]) {
			case "REPLY", "TRACKING", "CACHING":
				return classState
			}
		}
	case "BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT", "WAITAOF":
		return ClassBlocks
	case "XREAD", "XREADGROUP":
		for _, a := range args[1:] {
			if strings.EqualFold(a, "BLOCK") {
				return ClassBlocks
			}
			if strings.EqualFold(a, "STREAMS") {
				break
			}
		}
	}
	return ClassPlain
}

var (
	ErrState = errors.New("it changes the connection, which others share; use Tx, Receive or the settings for that, or Client().Dedicate")
	errMulti = errors.New("MULTI and EXEC belong into one DoMulti, or use Tx")
)

// Pipeline is what is known of commands before they are sent, and no longer
// after: the client takes them back.
type Pipeline struct {
	Steps       []Step
	Idempotency fault.Idempotency // the least of them
	whole       bool              // holds a transaction
	Dedicated   bool              // needs a connection of its own
	Size        int
}

// Step is one command of a pipeline.
type Step struct {
	Op          string
	Idempotency fault.Idempotency
	Slot        uint16
}

// FewCommands are as many as a pipeline usually has at most.
const FewCommands = 4

// Inspect reads the commands, and refuses those that must not be sent. There may
// be space for what it notes.
func Inspect(cmds []rueidis.Completed, most int, space []Step) (Pipeline, *fault.Error) {
	if len(space) < len(cmds) {
		space = make([]Step, len(cmds))
	}
	p := Pipeline{Steps: space[:len(cmds)], Idempotency: fault.ReadOnly, Dedicated: len(cmds) >= bulkCommands}
	open := false
	for i := range cmds {
		c := &cmds[i]
		args := c.Commands()
		p.Steps[i] = Step{args[0], fault.IdempotencyOf(*c), c.Slot()}
		p.Idempotency = min(p.Idempotency, p.Steps[i].Idempotency)
		p.Size += CommandSize(args)
		switch ClassOf(args) {
		case classState:
			return p, NotAllowed(args[0], ErrState)
		case ClassBlocks:
			p.Dedicated = true
		case classBegin:
			if open {
				return p, NotAllowed(args[0], errMulti)
			}
			open, p.whole, p.Idempotency = true, true, fault.NonIdempotent
		case classEnd:
			if !open {
				return p, NotAllowed(args[0], errMulti)
			}
			open = false
		}
		p.Dedicated = p.Dedicated || c.IsBlock()
	}
	if open {
		return p, NotAllowed("MULTI", errMulti)
	}
	if p.Size > most {
		return p, TooLarge(p.Steps[0].Op, p.Size, most)
	}
	return p, nil
}

// CommandSize counts the bytes of all arguments.
func CommandSize(args []string) (size int) {
	for _, s := range args {
		size += len(s)
	}
	return size
}

// NotAllowed is the error of a command that is not sent, and why.
func NotAllowed(op string, why error) *fault.Error {
	return &fault.Error{Op: op, Kind: fault.KindServer, Outcome: fault.OutcomeNotApplied, Err: why}
}

// TooLarge is the error of a call of size bytes, where most are allowed.
func TooLarge(op string, size, most int) *fault.Error {
	return &fault.Error{Op: op, Kind: fault.KindTooLarge, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("%d bytes are more than Config.MaxValueSize, %d", size, most)}
}

// bulkCommands is the length from which a pipeline gets a connection of its
// own, so that other calls do not wait for all its replies.
const bulkCommands = 2000
