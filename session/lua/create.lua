-- Create a session. ARGV: member, idle milliseconds, absolute microseconds,
-- user, data, device, a generation for the epoch if there is none, most sessions
-- of the user (0: any number), one that is about to end and does not count,
-- whether the cookie outlives the browser, how many members are dead, they.
-- Returns {1, {evicted, …}}, {2} when there is one already: the identifier is
-- taken, or it is the same call once more.
if ARGV[4] ~= '' and not KEYS[2] then return {0, 'whole'} end
if call('EXISTS', KEYS[1]) == 1 then return {2} end
local user, ends = ARGV[4], clock + tonumber(ARGV[3])
local epoch, evicted = '', {}
if user ~= '' then
  epoch = call('GET', KEYS[2])
  if not epoch then
    epoch = ARGV[7]
    call('DEL', KEYS[3]) -- without an epoch none of them is valid
  end
  local long = math.ceil(tonumber(ARGV[3]) / 1000) + 1000
  call('SET', KEYS[2], epoch, 'PX', math.max(long, call('PTTL', KEYS[2])))
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', clock)
  for i = 1, tonumber(ARGV[11]) do call('ZREM', KEYS[3], ARGV[11 + i]) end
  local most = tonumber(ARGV[8])
  if most > 0 then
    local leaving = call('ZSCORE', KEYS[3], ARGV[9])
    if leaving then call('ZREM', KEYS[3], ARGV[9]) end
    local over = call('ZCARD', KEYS[3]) + 1 - most
    if over > 0 then
      evicted = call('ZRANGE', KEYS[3], '0', over - 1)
      call('ZREMRANGEBYRANK', KEYS[3], '0', over - 1)
    end
    if leaving then call('ZADD', KEYS[3], leaving, ARGV[9]) end
  end
  call('ZADD', KEYS[3], ends, ARGV[1])
  call('PEXPIRE', KEYS[3], math.max(long, call('PTTL', KEYS[3])))
end
call('HSET', KEYS[1], 'v', '1', 'c', clock, 'a', ends, 'i', ARGV[2], 'u', user, 'e', epoch, 'd', ARGV[5], 'm', ARGV[6])
if ARGV[10] ~= '' then call('HSET', KEYS[1], 'r', ARGV[10]) end
call('PEXPIRE', KEYS[1], math.max(math.min(tonumber(ARGV[2]), math.ceil((ends - clock) / 1000)), 1))
return {1, evicted}
