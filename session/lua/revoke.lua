-- End every session of a user, but the one of KEYS[1] if ARGV[1] names its
-- member. ARGV[2] a new generation. Returns {2, n}, how many there were, the kept
-- one not counted, or {0, why} and ends none when the one to keep is none.
if ARGV[1] == '' then
  local n = call('ZCOUNT', KEYS[3], '(' .. int(clock), '+inf')
  -- Without an epoch nothing is valid; the next login makes a new one.
  call('DEL', KEYS[2], KEYS[3])
  return {2, n}
end
local kept, why = fetch(ARGV[1])
if not kept then return {0, why} end
if kept.frozen then return {0, 'frozen'} end
local n = call('ZCOUNT', KEYS[3], '(' .. int(clock), '+inf')
local left = math.max(math.ceil((kept.ends - clock) / 1000), 1)
call('DEL', KEYS[3]) -- first: a Redis that is full lets a script go on that has begun to write
call('SET', KEYS[2], ARGV[2], 'PX', int(left + 1000))
call('HSET', KEYS[1], 'e', ARGV[2])
call('ZADD', KEYS[3], int(kept.ends), ARGV[1])
call('PEXPIRE', KEYS[3], int(left + 1000))
return {2, n - 1}
