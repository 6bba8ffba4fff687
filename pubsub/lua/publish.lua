-- Publish with a history. KEYS: meta, history. ARGV: channel, PUBLISH or
-- SPUBLISH, an epoch if there is none, nonce, most messages of the history,
-- its life and that of meta in milliseconds, payload, a secret if there is none,
-- the SHA-256 of the payload. Returns {epoch, offset, receivers}.
--
-- An epoch is one unbroken history. Offsets count from 1. Each message has a
-- nonce of its own and names that of the message before it, so that another
-- one that got the same offset after a failover is not taken for it. Meta holds
-- epoch, offset and nonce of the last, and outlives the history. It holds a
-- secret too: the seal of a message that is sent shows that it was sent from
-- here, and not by somebody who may do nothing but PUBLISH.
local last = redis.call('HMGET', KEYS[1], 'e', 'n', 'x', 's')
local epoch, offset, before, secret = last[1], 1, last[3] or '', last[4] or ARGV[9]
if epoch then
  offset = tonumber(last[2] or 0) + 1
else
  epoch, before, secret = ARGV[3], '', ARGV[9]
  redis.call('DEL', KEYS[1], KEYS[2])
end
-- The first write, by which memory that is full is noticed before anything is sent.
redis.call('HSET', KEYS[1], 'e', epoch, 's', secret)
local at = string.format('%.0f', offset)
local head = 'r1 ' .. epoch .. ' ' .. at .. ' ' .. ARGV[4] .. ' ' .. before
-- Hashed twice, as in HMAC: of one hash, a longer text could be made.
local seal = redis.sha1hex('o' .. secret .. redis.sha1hex('i' .. secret .. head .. ' ' .. ARGV[10]))
local receivers = redis.call(ARGV[2], ARGV[1], head .. ' ' .. seal .. '\n' .. ARGV[8])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], at .. '-0', 'n', ARGV[4], 'p', before, 'd', ARGV[8])
redis.call('HSET', KEYS[1], 'n', at, 'x', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return {epoch, at, receivers}
