package madcrow

import (
	"errors"
	"sync"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/topology"
)

var errEmpty = errors.New("the command is empty: it was sent already, or never built")

// request is a command with what decides over its way. It outlives the command,
// which is gone once it was answered.
type request struct {
	cmd    Command
	slot   uint16
	idem   fault.Idempotency
	blocks bool // it waits in Redis
}

func requestOf(cmd Command) request {
	return request{cmd: cmd, slot: cmd.Slot(), idem: fault.IdempotencyOf(cmd), blocks: cmd.IsBlock()}
}

// keptArgs are as many arguments as a command usually has at most.
const keptArgs = 8

// kept are the arguments of a command, to build it again: the client takes a
// command back, and uses its memory for others, once it was answered. The usual
// ones stand on the stack.
type kept struct {
	few  [keptArgs]string
	n    int
	many *argList // from manyArgs
}

// argList is a longer list of arguments, of one command or of several.
type argList struct {
	args []string
	ends []int // of the commands of a pipeline
}

// manyArgs are such lists.
var manyArgs = sync.Pool{New: func() any { return new(argList) }}

func (k *kept) keep(args []string) {
	if k.n = len(args); k.n <= keptArgs {
		copy(k.few[:], args)
		return
	}
	k.many, _ = manyArgs.Get().(*argList)
	k.many.args = append(k.many.args, args...)
}

// build makes the command again. It has neither slot nor flags: those of its
// request are looked at, and the client looks at none.
func (k *kept) build(b Builder) Command {
	if k.many != nil {
		return b.Arbitrary(k.many.args...).Build()
	}
	return b.Arbitrary(k.few[:k.n]...).Build()
}

func (k *kept) release() {
	if k.many != nil {
		releaseArgs(k.many)
		k.many = nil
	}
}

// maxPooledArgs keeps the memory of a huge command from staying.
const maxPooledArgs = 4096

func releaseArgs(list *argList) {
	if cap(list.args) > maxPooledArgs {
		return
	}
	clear(list.args)
	list.args, list.ends = list.args[:0], list.ends[:0]
	manyArgs.Put(list)
}

// keptMany are the arguments of all commands of a pipeline, one behind the other.
// Those of command i end at at[i].
type keptMany struct {
	few  [2 * keptArgs]string
	at   [topology.FewCommands]int
	many *argList // from manyArgs
}

func (k *keptMany) keep(cmds []Command) {
	n := 0
	for i := range cmds {
		n += len(cmds[i].Commands())
	}
	if n <= len(k.few) && len(cmds) <= len(k.at) {
		end := 0
		for i := range cmds {
			end += copy(k.few[end:], cmds[i].Commands())
			k.at[i] = end
		}
		return
	}
	k.many, _ = manyArgs.Get().(*argList)
	for i := range cmds {
		k.many.args = append(k.many.args, cmds[i].Commands()...)
		k.many.ends = append(k.many.ends, len(k.many.args))
	}
}

// build makes command i again: see kept.build.
func (k *keptMany) build(b Builder, i int) Command {
	if k.many == nil {
		from := 0
		if i > 0 {
			from = k.at[i-1]
		}
		return b.Arbitrary(k.few[from:k.at[i]]...).Build()
	}
	from := 0
	if i > 0 {
		from = k.many.ends[i-1]
	}
	return b.Arbitrary(k.many.args[from:k.many.ends[i]]...).Build()
}

// buildAll makes all n commands again, in a new list: the client may still read the
// old one.
func (k *keptMany) buildAll(b Builder, n int) []Command {
	cmds := make([]Command, n)
	for i := range cmds {
		cmds[i] = k.build(b, i)
	}
	return cmds
}

func (k *keptMany) release() {
	if k.many != nil {
		releaseArgs(k.many)
		k.many = nil
	}
}
