package madcrow

import (
	"errors"
	"fmt"
	"strings"

	"github.com/madcrow-go/madcrow/internal/fault"
)

// class says how a command must travel.
type class uint8

const (
	classPlain  class = iota
	classBlocks       // waits in Redis: a connection of its own
	classState        // changes the connection for all who share it: refused
	classBegin        // MULTI: only together with its EXEC
	classEnd          // EXEC, DISCARD
)

// classOf knows the commands that must not travel like others. Those of the
// Builder are in upper case and marked; Arbitrary takes anything.
func classOf(args []string) class {
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
		return classBlocks
	case "XREAD", "XREADGROUP":
		for _, a := range args[1:] {
			if strings.EqualFold(a, "BLOCK") {
				return classBlocks
			}
			if strings.EqualFold(a, "STREAMS") {
				break
			}
		}
	}
	return classPlain
}

var (
	errState = errors.New("it changes the connection, which others share; use Tx, Receive or the settings for that, or Client().Dedicate")
	errMulti = errors.New("MULTI and EXEC belong into one DoMulti, or use Tx")
)

// pipeline is what is known of commands before they are sent, and no longer
// after: the client takes them back.
type pipeline struct {
	cmds        []pipelined
	idempotency fault.Idempotency // the least of them
	whole       bool              // holds a transaction
	dedicated   bool              // needs a connection of its own
	size        int
}

// pipelined is one command of a pipeline.
type pipelined struct {
	op          string
	idempotency fault.Idempotency
}

// fewCommands are as many as a pipeline usually has at most.
const fewCommands = 4

// look reads the commands, and refuses those that must not be sent. There may
// be space for what it notes.
func look(cmds []Command, most int, space []pipelined) (pipeline, *fault.Error) {
	if len(space) < len(cmds) {
		space = make([]pipelined, len(cmds))
	}
	p := pipeline{cmds: space[:len(cmds)], idempotency: fault.ReadOnly, dedicated: len(cmds) >= bulkCommands}
	open := false
	for i := range cmds {
		c := &cmds[i]
		args := c.Commands()
		p.cmds[i] = pipelined{args[0], fault.IdempotencyOf(*c)}
		p.idempotency = min(p.idempotency, p.cmds[i].idempotency)
		p.size += commandSize(args)
		switch classOf(args) {
		case classState:
			return p, refused(args[0], errState)
		case classBlocks:
			p.dedicated = true
		case classBegin:
			if open {
				return p, refused(args[0], errMulti)
			}
			open, p.whole, p.idempotency = true, true, fault.NonIdempotent
		case classEnd:
			if !open {
				return p, refused(args[0], errMulti)
			}
			open = false
		}
		p.dedicated = p.dedicated || c.IsBlock()
	}
	if open {
		return p, refused("MULTI", errMulti)
	}
	if p.size > most {
		return p, tooLarge(p.cmds[0].op, p.size, most)
	}
	return p, nil
}

// commandSize counts the bytes of all arguments.
func commandSize(args []string) (size int) {
	for _, s := range args {
		size += len(s)
	}
	return size
}

func refused(op string, why error) *fault.Error {
	return &fault.Error{Op: op, Kind: fault.KindServer, Outcome: fault.OutcomeNotApplied, Err: why}
}

func tooLarge(op string, size, most int) *fault.Error {
	return &fault.Error{Op: op, Kind: fault.KindTooLarge, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("%d bytes are more than Config.MaxValueSize, %d", size, most)}
}
