-- End every session of a user, but the one of KEYS[1] if ARGV[1] names its
-- member. ARGV[2] a new generation. Returns how many there were, the kept one
-- not counted; -1 when the one to keep is none any more: then all are ended.
local kept = nil
if ARGV[1] ~= '' then
  local s = fetch(ARGV[1])
  if s and not s.frozen and s.user ~= '' then kept = s end
end
local n = redis.call('ZCOUNT', KEYS[3], '(' .. int(clock), '+inf')
if not kept then
  -- Without an epoch nothing is valid; the next login makes a new one.
  redis.call('DEL', KEYS[2], KEYS[3])
  if ARGV[1] ~= '' then return -1 end
  return n
end
local left = math.max(math.ceil((kept.ends - clock) / 1000), 1)
redis.call('SET', KEYS[2], ARGV[2], 'PX', int(left + 1000))
redis.call('HSET', KEYS[1], 'e', ARGV[2])
redis.call('DEL', KEYS[3])
redis.call('ZADD', KEYS[3], int(kept.ends), ARGV[1])
redis.call('PEXPIRE', KEYS[3], int(left + 1000))
return n - 1
