-- Exact sliding window log in a sorted set: one member for each admitted
-- request, score = Unix seconds. An entry of age exactly one window is free.
--
-- Other programs may write the same set (member = score = their clock). Their
-- members count and leave by age alone; only members that begin with "m:",
-- which got their score from a Redis server's clock, move the clock here.

-- A double holds seconds to a quarter of a microsecond, so the way there and
-- back is exact.
local function seconds(us)
  if us < 0 then us = 0 end
  return string.format('%d.%06d', math.floor(us / 1000000), us % 1000000)
end
local function micros(score) return math.floor(tonumber(score) * 1000000 + 0.5) end

-- nonce makes the members unique; never a time, since two requests may share
-- an instant.
local function judge_set(key, cost, limit, window, _, _, _, nonce)
  -- Time never goes back here: now is our newest member's, unless that is more
  -- than a window ahead. Those are dropped, so that a broken clock locks
  -- nobody out for longer than two windows.
  local now = clock
  local newest = nil
  local ahead = {}
  local from = 0
  while true do
    local page = redis.call('ZREVRANGEBYSCORE', key, '+inf', '(' .. seconds(clock), 'WITHSCORES', 'LIMIT', int(from), '100')
    for i = 1, #page, 2 do
      if string.sub(page[i], 1, 2) == 'm:' then
        newest = newest or micros(page[i + 1])
        ahead[#ahead + 1] = page[i]
      end
    end
    if #page < 200 or (newest and newest - clock <= window) then break end
    from = from + 100
  end
  if newest then
    if newest - clock <= window then
      now = newest
    else
      for i = 1, #ahead do redis.call('ZREM', key, ahead[i]) end
    end
  end

  redis.call('ZREMRANGEBYSCORE', key, '-inf', seconds(now - window))
  local count = redis.call('ZCARD', key)

  -- Two windows bound what a foreign score can cause.
  local function left(last) return math.min(math.max(last + window - clock, 1), 2 * window) end
  local retry, reset = 0, 0
  if count + cost > limit then
    local at = int(count + cost - limit - 1)
    local entry = redis.call('ZRANGE', key, at, at, 'WITHSCORES')
    retry = math.max(micros(entry[2]) + window - clock, 1)
  end
  local last = 0
  if count > 0 then
    last = micros(redis.call('ZREVRANGE', key, '0', '0', 'WITHSCORES')[2])
    reset = left(last)
    -- Not for another program's clock that is ahead: it would lock out longer.
    if retry > 0 and last <= now then keep(key, reset) end
  end
  return retry, count, reset, 0, function()
    local score = seconds(now)
    if cost == 1 then
      redis.call('ZADD', key, score, 'm:' .. nonce)
    else
      local n = 0
      while n < cost do
        local some = {}
        for _ = 1, math.min(cost - n, 500) do
          n = n + 1
          some[#some + 1] = score
          some[#some + 1] = 'm:' .. nonce .. ':' .. int(n)
        end
        redis.call('ZADD', key, unpack(some))
      end
    end
    reset = left(math.max(last, now))
    redis.call('PEXPIRE', key, life(reset))
    return count + cost, reset, 0
  end
end
