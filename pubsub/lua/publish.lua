-- Publish with a history. KEYS: meta, history. ARGV: channel, PUBLISH or
-- SPUBLISH, an epoch if there is none, nonce, most messages of the history,
-- its life in milliseconds, payload. Returns {epoch, offset, receivers}.
--
-- An epoch is one unbroken history. Offsets count from 1; the nonce tells a
-- message from another that got the same offset after a failover.
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[3]
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'e', epoch)
end
local offset = redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], string.format('%.0f-0', offset), 'n', ARGV[4], 'd', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
local text = string.format('r1 %s %.0f %s\n', epoch, offset, ARGV[4]) .. ARGV[7]
return {epoch, offset, redis.call(ARGV[2], ARGV[1], text)}
