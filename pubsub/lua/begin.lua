-- Begin a history, where there is none, with nothing in it: so that a place
-- before its first message is one of this history. KEYS: meta, history. ARGV: an
-- epoch, the life of meta in milliseconds, a secret. Returns epoch, offset and
-- nonce of the last message, and the secret (see publish.lua).
if not redis.call('HGET', KEYS[1], 'n') then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'e', ARGV[1], 'n', 0, 'x', '', 's', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'e', 'n', 'x', 's')
