-- Leases of a concurrency limit: a sorted set of lease ids by the time when
-- they end. KEYS: the set, the block, which may be missing. ARGV: verb, limit, length of a lease in
-- microseconds, id, and for 3 a channel: where all were taken, those who wait hear there of the key. Verbs: 0 look, 1 acquire, 2 prolong, 3 release.
-- Returns {retry, used, reset, 0}, used -1 while it is blocked; for 2 and 3 {0 or 1: it was held, used, reset, 0}.
local verb, limit, length, id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
-- A set that becomes empty is not read again: while a cluster moves its slot, its
-- key is then the other node's.
local used = call('ZCARD', KEYS[1])
used = used - call('ZREMRANGEBYSCORE', KEYS[1], '-inf', clock)
if used > 0 then
  -- A clock that was put back must not keep leases for longer than their length.
  local ahead = call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', clock + length), '+inf')
  for i = 1, #ahead do call('ZADD', KEYS[1], clock + length, ahead[i]) end
end

local first, block = 0, 0
if verb == '2' then
  if used > 0 and call('ZSCORE', KEYS[1], id) then
    call('ZADD', KEYS[1], clock + length, id)
    first = 1
  end
elseif verb == '3' and used > 0 then
  first = call('ZREM', KEYS[1], id)
  used = used - first
  -- Who may not publish still releases; those who wait ask from time to time.
  if first == 1 and used + 1 >= limit and ARGV[5] then redis.pcall('PUBLISH', ARGV[5], KEYS[1]) end
end
if verb == '0' or verb == '1' then
  local held = used > 0 and call('ZSCORE', KEYS[1], id) -- called again after a lost reply
  if used >= limit and not held then
    -- When enough of those that are held have ended, at the latest.
    local at = used - limit
    first = math.max(tonumber(call('ZRANGE', KEYS[1], at, at, 'WITHSCORES')[2]) - clock, 1)
  end
  if KEYS[2] then block = blocked(KEYS[2]) end
  first = math.max(first, block)
  if first == 0 and verb == '1' then
    call('ZADD', KEYS[1], clock + length, id)
    if not held then used = used + 1 end
  end
end
local reset = 0
if used > 0 then
  reset = tonumber(call('ZREVRANGE', KEYS[1], '0', '0', 'WITHSCORES')[2]) - clock
  if call('PTTL', KEYS[1]) < reset / 1000 then call('PEXPIRE', KEYS[1], math.ceil(reset / 1000) + 1) end
end
if block > 0 then used = -1 end
return {first, used, reset, 0}
