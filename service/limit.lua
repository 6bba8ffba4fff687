-- Exact sliding window on a sorted set: at most LIMIT admitted requests in any
-- window. One member an admitted request; a denied one changes nothing.
--
-- KEYS[1]  the sorted set; score = Unix seconds
-- ARGV[1]  limit, at least 1
-- ARGV[2]  window, microseconds
-- ARGV[3]  member of this request: "m:" and random characters
-- Returns  {admitted 0|1, count, retry after, reset after}, microseconds
--
-- Other programs may write the same set (member = score = their clock). Their
-- members count and leave by age alone; only members that begin with "m:",
-- which all got their score from a Redis server's clock, move the clock here.

local key = KEYS[1]
local limit = tonumber(ARGV[1])
local window = tonumber(ARGV[2])

local t = redis.call('TIME')
local clock = tonumber(t[1]) * 1000000 + tonumber(t[2])

-- Scores stay Unix seconds for the other programs. A double holds them to a
-- quarter of a microsecond, so the way there and back is exact.
local function seconds(us)
  if us < 0 then us = 0 end
  return string.format('%d.%06d', math.floor(us / 1000000), us % 1000000)
end
local function micros(score)
  return math.floor(tonumber(score) * 1000000 + 0.5)
end
local function int(n)
  return string.format('%.0f', n)
end

-- After a failover the new server's clock may be behind our newest member. Time
-- never goes back here: now is then that member's. A member more than a window
-- ahead is not believed; ours from the future are dropped, so that a broken
-- clock locks nobody out for longer than two windows.
local now = clock
local newest = nil
local ahead = {}
local later = false -- is any entry, of whomever, later than the clock?
local from = 0
while true do
  local page = redis.call('ZREVRANGEBYSCORE', key, '+inf', '(' .. seconds(clock), 'WITHSCORES', 'LIMIT', int(from), '100')
  for i = 1, #page, 2 do
    later = true
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

-- An entry of age exactly one window is free.
redis.call('ZREMRANGEBYSCORE', key, '-inf', seconds(now - window))
local count = redis.call('ZCARD', key)

local admitted = 0
if count < limit then
  redis.call('ZADD', key, seconds(now), ARGV[3])
  admitted = 1
  count = count + 1
end

local last = now
if later or admitted == 0 then
  last = micros(redis.call('ZREVRANGE', key, '0', '0', 'WITHSCORES')[2])
end
-- Waiting times are told by the clock that will be asked next, not by the one
-- that was held back. Two windows bound what a foreign score can cause.
local reset = math.min(math.max(last + window - clock, 1), 2 * window)

local retry = 0
if admitted == 1 then
  -- Rounded up: the key must not go before its newest entry.
  redis.call('PEXPIRE', key, int(math.ceil(reset / 1000)))
else
  local first = redis.call('ZRANGE', key, int(count - limit), int(count - limit), 'WITHSCORES')
  retry = math.max(micros(first[2]) + window - clock, 1)
end
return {admitted, count, retry, reset}
