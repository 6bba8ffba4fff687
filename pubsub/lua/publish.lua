-- Publish with a history. KEYS: meta, history. ARGV: channel, PUBLISH or
-- SPUBLISH, an epoch if there is none, nonce, most messages of the history,
-- its life and that of meta in milliseconds, payload. Returns {epoch, offset,
-- receivers}.
--
-- An epoch is one unbroken history. Offsets count from 1. Each message has a
-- nonce of its own and names that of the message before it, so that another
-- one that got the same offset after a failover is not taken for it. Meta holds
-- epoch, offset and nonce of the last, and outlives the history.
local last = redis.call('HMGET', KEYS[1], 'e', 'n', 'x')
local epoch, offset, before = last[1], 1, last[3] or ''
if epoch then
  offset = tonumber(last[2] or 0) + 1
else
  epoch, before = ARGV[3], ''
  redis.call('DEL', KEYS[1], KEYS[2])
end
-- The first write, by which memory that is full is noticed before anything is sent.
redis.call('HSET', KEYS[1], 'e', epoch)
local at = string.format('%.0f', offset)
local receivers = redis.call(ARGV[2], ARGV[1], 'r1 ' .. epoch .. ' ' .. at .. ' ' .. ARGV[4] .. ' ' .. before .. '\n' .. ARGV[8])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], at .. '-0', 'n', ARGV[4], 'p', before, 'd', ARGV[8])
redis.call('HSET', KEYS[1], 'n', at, 'x', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return {epoch, at, receivers}
