package madcrowtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// advanceScript takes time off the life of each key of one database. It collects the
// keys first: SCAN may return one twice.
const advanceScript = `
local ages, cursor = {}, '0'
repeat
	local page = redis.call('SCAN', cursor, 'COUNT', 1000)
	cursor = page[1]
	for _, key in ipairs(page[2]) do
		ages[key] = redis.call('PTTL', key)
	end
until cursor == '0'
for key, left in pairs(ages) do
	if left >= 0 then
		left = left - tonumber(ARGV[1])
		if left < 10 then left = 0 end
		redis.call('PEXPIRE', key, left)
	end
end
return redis.status_reply('OK')`

// Advance lets keys age by d without waiting: every key that expires loses d of its
// life, and is deleted where less than 10 ms are left. So a cached value is stale or
// gone, a lease is free, a session is over after its idle or its absolute time-out, and
// a limit that has reset is fresh.
//
// It does not move the clock of the server. What is computed from that clock goes on as
// before: a part of a window does not refill a limit, messages of a stream are not
// idle for longer, delayed messages come no sooner. Nor does it move the clock of this
// process, by which a limiter remembers whom it has denied (call its Reset), and by
// which a near copy is believed where Redis does not notify. d is rounded up to
// milliseconds. In a set, advance each server that holds data.
func (s *Server) Advance(t testing.TB, d time.Duration) {
	t.Helper()
	if d <= 0 {
		t.Fatalf("madcrowtest: Advance: %v is not in the future", d)
	}
	ms := fmt.Sprint((d + time.Millisecond - 1).Milliseconds())
	info, _ := s.Do(t, "INFO", "keyspace").(string)
	var commands [][]string
	for line := range strings.Lines(info) {
		if db, ok := strings.CutPrefix(line, "db"); ok {
			db, _, _ = strings.Cut(db, ":")
			commands = append(commands, []string{"SELECT", db}, []string{"EVAL", advanceScript, "0", ms})
		}
	}
	if commands == nil {
		return
	}
	replies, err := s.exchange(doTimeout, commands...)
	for _, reply := range replies {
		if refused, ok := reply.(error); ok && err == nil {
			err = refused
		}
	}
	if err != nil {
		t.Fatalf("madcrowtest: Advance: %v", err)
	}
}
