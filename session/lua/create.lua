-- Create a session. ARGV: member, idle milliseconds, absolute microseconds,
-- user, data, device, a generation for the epoch if there is none, most sessions
-- of the user (0: any number), one that is about to end and does not count,
-- whether the cookie outlives the browser, how many members are dead, they.
-- Returns {1, {evicted, …}}, {2} when there is one already: the identifier is
-- taken, or it is the same call once more.
if redis.call('EXISTS', KEYS[1]) == 1 then return {2} end
local user, ends = ARGV[4], clock + tonumber(ARGV[3])
local epoch, evicted = '', {}
if user ~= '' then
  epoch = redis.call('GET', KEYS[2])
  if not epoch then
    epoch = ARGV[7]
    redis.call('DEL', KEYS[3]) -- without an epoch none of them is valid
  end
  local long = math.ceil(tonumber(ARGV[3]) / 1000) + 1000
  redis.call('SET', KEYS[2], epoch, 'PX', int(math.max(long, redis.call('PTTL', KEYS[2]))))
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', int(clock))
  for i = 1, tonumber(ARGV[11]) do redis.call('ZREM', KEYS[3], ARGV[11 + i]) end
  local most = tonumber(ARGV[8])
  if most > 0 then
    local leaving = redis.call('ZSCORE', KEYS[3], ARGV[9])
    if leaving then redis.call('ZREM', KEYS[3], ARGV[9]) end
    local over = redis.call('ZCARD', KEYS[3]) + 1 - most
    if over > 0 then
      evicted = redis.call('ZRANGE', KEYS[3], '0', int(over - 1))
      redis.call('ZREMRANGEBYRANK', KEYS[3], '0', int(over - 1))
    end
    if leaving then redis.call('ZADD', KEYS[3], leaving, ARGV[9]) end
  end
  redis.call('ZADD', KEYS[3], int(ends), ARGV[1])
  redis.call('PEXPIRE', KEYS[3], int(math.max(long, redis.call('PTTL', KEYS[3]))))
end
redis.call('HSET', KEYS[1], 'v', '1', 'c', int(clock), 'a', int(ends), 'i', ARGV[2], 'u', user, 'e', epoch, 'd', ARGV[5], 'm', ARGV[6])
if ARGV[10] ~= '' then redis.call('HSET', KEYS[1], 'r', ARGV[10]) end
redis.call('PEXPIRE', KEYS[1], int(life({idle = tonumber(ARGV[2]), ends = ends})))
return {1, evicted}
