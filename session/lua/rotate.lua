-- Move a session to a new identifier in the same slot. KEYS[4] the new one.
-- ARGV: member, new member, grace in milliseconds during which the old one can
-- be read; one without user is gone at once. Returns {2} or {0, why}.
local s, why = fetch(ARGV[1])
if not s then return {0, why} end
if s.frozen then return {0, 'frozen'} end
local all = redis.call('HGETALL', KEYS[1])
redis.call('HSET', KEYS[4], unpack(all))
redis.call('PEXPIRE', KEYS[4], int(life(s)))
if s.user ~= '' then
  redis.call('ZADD', KEYS[3], int(s.ends), ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[1])
end
if tonumber(ARGV[3]) > 0 and s.user ~= '' then
  redis.call('HSET', KEYS[1], 'x', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], int(math.min(tonumber(ARGV[3]), life(s))))
else
  redis.call('DEL', KEYS[1])
end
return {2}
