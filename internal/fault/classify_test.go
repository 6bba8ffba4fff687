package fault

import (
	"errors"
	"testing"
)

const (
	inFunction = " script: caeeee01384f6b04384c56d69c27aa65287fb306, on @user_script:1." // Redis 7 and 8, Valkey 8
	inValkey9  = " script: on @user_script:1."
	inRedis6   = "ERR Error running script (call to f_caeeee01384f6b04384c56d69c27aa65287fb306): @user_script:1: "
	inDragon   = "ERR Error running script (call to caeeee01384f6b04384c56d69c27aa65287fb306): @user_script:2: "

	readOnlyText = "READONLY You can't write against a read only replica."
	oomText      = "OOM command not allowed when used memory > 'maxmemory'."
	replicasText = "NOREPLICAS Not enough good replicas to write."
	misconfText  = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."
	quotaText    = "ERR max requests limit exceeded. Limit: 500000, Usage: 500000. See https://example.com for details"
)

// TestClassify_EveryWordingOfARefusal goes through what servers answer, each
// text as it was seen. Refusals inside a script were of unknown outcome, and on
// Redis 6 server errors too.
func TestClassify_EveryWordingOfARefusal(t *testing.T) {
	const applied, unknown = OutcomeNotApplied, OutcomeUnknown
	for _, c := range []struct {
		op, text  string
		kind      Kind
		outcome   Outcome
		again     bool // the same call may be sent again
		later     bool // the script may be
		nodeFault Kind
	}{
		{"SET", readOnlyText, KindReadOnly, applied, false, false, KindReadOnly},
		{"EVALSHA", readOnlyText, KindReadOnly, applied, false, false, KindReadOnly}, // of a script with flags
		{"EVALSHA", readOnlyText + inFunction, KindReadOnly, applied, false, false, KindReadOnly},
		{"EVALSHA", readOnlyText + inValkey9, KindReadOnly, applied, false, false, KindReadOnly},
		{"FCALL", readOnlyText + " script: shop, on @user_function:12.", KindReadOnly, applied, false, false, KindReadOnly},
		{"evalsha", inRedis6 + "@user_script: 1: -" + readOnlyText, KindReadOnly, applied, false, false, KindReadOnly},
		{"EVALSHA", "@user_script: 1: -" + readOnlyText + "  ", KindReadOnly, applied, false, false, KindReadOnly}, // by redis.pcall
		{"EVALSHA", inDragon + "-" + readOnlyText, KindReadOnly, applied, false, false, KindReadOnly},
		{"EXEC", "EXECABORT Transaction discarded because of: " + readOnlyText, KindReadOnly, applied, false, false, KindReadOnly},
		{"EXEC", "EXECABORT Transaction discarded because of previous errors.", KindServer, applied, false, false, KindServer},

		{"SET", oomText, KindOutOfMemory, applied, false, false, KindOutOfMemory},
		{"EVALSHA", oomText + inFunction, KindOutOfMemory, applied, false, false, KindOutOfMemory},
		{"EVALSHA", oomText + inValkey9, KindOutOfMemory, applied, false, false, KindOutOfMemory},
		{"EVALSHA", inRedis6 + "@user_script: 1: -" + oomText, KindOutOfMemory, applied, false, false, KindOutOfMemory},
		{"EVALSHA", inDragon + "-" + oomText, KindOutOfMemory, unknown, false, false, 0}, // it checks each command
		{"SET", "ERR Out of memory", KindOutOfMemory, applied, false, false, KindOutOfMemory},

		{"SET", replicasText, KindReadOnly, applied, true, false, 0},
		{"EVALSHA", replicasText + inFunction, KindReadOnly, applied, false, true, 0},
		{"EVALSHA", replicasText + inValkey9, KindReadOnly, applied, false, true, 0},
		{"SET", misconfText, KindReadOnly, applied, false, false, 0},
		{"EVALSHA", misconfText + inFunction, KindReadOnly, applied, false, false, 0},
		{"EVALSHA", "MISCONF Valkey is configured to save RDB snapshots, but" + inValkey9, KindReadOnly, applied, false, false, 0},
		{"EVALSHA", "MISCONF Errors writing to the AOF file: No space left on device" + inFunction, KindReadOnly, applied, false, false, 0},
		{"EVALSHA", inRedis6 + "@user_script: 1: -" + misconfText, KindReadOnly, applied, false, false, 0},

		{"EVALSHA", "LOADING Redis is loading the dataset in memory", KindLoading, applied, true, false, KindLoading},
		{"EVALSHA", "LOADING Dragonfly is loading the dataset in memory", KindLoading, applied, true, false, KindLoading},
		{"EVALSHA", "LOADING KeyDB is loading the dataset in memory", KindLoading, applied, true, false, KindLoading},
		{"EVALSHA", "LOADING kvrocks is restoring the db from backup", KindLoading, applied, true, false, KindLoading},
		{"EVALSHA", "ERR Can not execute during LOADING", KindLoading, applied, true, false, KindLoading},
		{"EVALSHA", "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", KindBusy, applied, true, false, KindBusy},
		{"EVALSHA", "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", KindUnavailable, applied, true, false, KindUnavailable},
		{"EVALSHA", "NOAUTH Authentication required.", KindAuth, applied, false, false, KindAuth},
		{"EXEC", "TRYAGAIN Multiple keys request during rehashing of slot", KindUnavailable, applied, true, false, KindUnavailable},

		{"LPUSH", "NOPERM User app has no permissions to run the 'lpush' command", KindPermission, applied, false, false, KindPermission},
		{"EVALSHA", "NOPERM No permissions to access a key", KindPermission, applied, false, false, KindPermission},
		// A command before the denied one may have written.
		{"EVALSHA", "ERR ACL failure in script: No permissions to access a key" + inFunction, KindPermission, unknown, false, false, 0},
		{"EVALSHA", "ERR The user executing the script can't run this command or subcommand" + inFunction, KindPermission, unknown, false, false, 0},
		{"EVALSHA", inRedis6 + "@user_script: 1: The user executing the script can't run this command or subcommand", KindPermission, unknown, false, false, 0},
		{"EVALSHA", "WRONGTYPE Operation against a key holding the wrong kind of value" + inFunction, KindWrongType, unknown, false, false, 0},
		{"EVALSHA", inRedis6 + "WRONGTYPE Operation against a key holding the wrong kind of value", KindWrongType, unknown, false, false, 0},

		{"GET", quotaText, KindUnavailable, applied, false, false, KindUnavailable},
		{"EVALSHA", quotaText, KindUnavailable, applied, false, false, KindUnavailable},
		{"EVALSHA", "ERR max daily request limit exceeded. Limit: 10000, Usage: 10001.", KindUnavailable, applied, false, false, KindUnavailable},
		{"EVALSHA", inDragon + quotaText[len("ERR "):], KindUnavailable, unknown, false, false, 0},
		{"SET", "ERR DB capacity quota exceeded", KindOutOfMemory, applied, false, false, KindOutOfMemory},
		{"SET", "ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1048600 bytes", KindTooLarge, applied, false, false, KindTooLarge},
		{"PING", "ERR max concurrent connections exceeded", KindUnavailable, applied, true, false, KindUnavailable},

		// Scripts that only read cannot have written.
		{"EVAL_RO", "ERR Write commands are not allowed from read-only scripts." + inFunction, KindServer, applied, false, false, KindServer},
		{"EVALSHA_RO", "WRONGTYPE Operation against a key holding the wrong kind of value" + inFunction, KindWrongType, applied, false, false, KindWrongType},
		{"FCALL_RO", "ERR boom" + inFunction, KindServer, applied, false, false, KindServer},

		// What a script makes up is not Redis' own word: it may have written.
		{"EVALSHA", "READONLY the shop is closed", KindReadOnly, unknown, false, false, 0},
		{"EVALSHA", "OOM no room in the basket", KindOutOfMemory, unknown, false, false, 0},
		{"EVALSHA", "MISCONF the shop is not set up", KindReadOnly, unknown, false, false, 0},
		{"EVALSHA", "NOPERM not your basket", KindPermission, unknown, false, false, 0},
		{"EVALSHA", "LOADING come back later", KindLoading, unknown, false, false, 0},
		{"EVALSHA", "BUSY come back later", KindBusy, unknown, false, false, 0},
		{"EVALSHA", "ERR limit exceeded", KindServer, unknown, false, false, 0},
		{"EVALSHA", "ERR user_script:1: " + readOnlyText + inFunction, KindServer, unknown, false, false, 0}, // error('READONLY …')
		{"EVALSHA", inRedis6 + "user_script:1: " + readOnlyText, KindServer, unknown, false, false, 0},
		{"EVALSHA", "the script: on @user_account", KindServer, unknown, false, false, 0},
		{"EVALSHA", "ERR Error running script (call to", KindServer, unknown, false, false, 0},
		{"EVALSHA", "", KindServer, unknown, false, false, 0},
	} {
		f := Failure{Error: &Error{Op: c.op, Err: errors.New(c.text)}}
		f.read(c.op, c.text)
		if f.Kind != c.kind || f.Outcome != c.outcome || f.Retry != c.again || f.Later != c.later || f.NodeFault != c.nodeFault {
			t.Errorf("%s %q:\n is %v, %v, again %v, later %v, node fault %v\nnot %v, %v, again %v, later %v, node fault %v",
				c.op, c.text, f.Kind, f.Outcome, f.Retry, f.Later, f.NodeFault, c.kind, c.outcome, c.again, c.later, c.nodeFault)
		}
	}
}

func TestClassify_ServersWithoutScripts(t *testing.T) {
	for _, c := range []struct {
		op, text string
		want     bool
	}{
		{"EVALSHA", "ERR This instance has Lua scripting support disabled", true}, // Garnet
		{"EVALSHA", "ERR unknown command 'EVALSHA', with args beginning with: 'caee'", true},
		{"EVALSHA", "ERR unknown command `EVALSHA`, with args beginning with: `caee`, ", true}, // Redis 6
		{"EVAL", "ERR unknown command 'eval'", true},
		{"EVALSHA", "NOPERM User app has no permissions to run the 'evalsha' command", true},
		{"EVALSHA", "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand", true},
		{"EVALSHA", "NOPERM No permissions to access a key", false},
		{"EVALSHA", "NOSCRIPT No matching script. Please use EVAL.", false},
		{"EVALSHA", "ERR Unknown Redis command called from script" + inFunction, false},
		{"GET", "ERR unknown command 'EVALSHA'", false},
		{"FCALL", "ERR unknown command 'FCALL'", false}, // ours are no functions
	} {
		f := Failure{Error: &Error{Op: c.op, Err: errors.New(c.text)}}
		f.read(c.op, c.text)
		if (f.Restricts == NoScripts) != c.want || errors.Is(f.Error, ErrNoScripts) != c.want || c.want && f.Outcome != OutcomeNotApplied {
			t.Errorf("%s %q is %v (restricted %v)", c.op, c.text, f.Error, f.Restricts)
		}
	}
}
