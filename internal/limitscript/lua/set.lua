-- Exact sliding window log in a sorted set: one member for each admitted
-- request, score = Unix seconds. An entry of age exactly one window is free.
--
-- Other programs may write the same set (member = score = their clock). Their
-- members count and leave by age alone; only members that begin with "m:",
-- which got their score from a Redis server's clock, move the clock here.
--
-- A double holds seconds to a quarter of a microsecond, so the way there and
-- back is exact: a command gets microseconds / 1000000 with all its digits.
--- decide
local newest = call('ZREVRANGE', key, '0', '0', 'WITHSCORES')[2]
local now, last = clock, math.floor((newest or 0) * 1000000 + 0.5)
if last > clock then
  -- Time never goes back here: now is our newest member's, unless that is more
  -- than a window ahead. Those are dropped, so that a broken clock locks no
  -- subject out for longer than two windows.
  local ahead, first, from = {}, nil, 0
  while true do
    local page = call('ZREVRANGEBYSCORE', key, '+inf', string.format('(%.17g', clock / 1000000), 'WITHSCORES', 'LIMIT', from, '100')
    for i = 1, #page, 2 do
      if string.sub(page[i], 1, 2) == 'm:' then
        first = first or math.floor(page[i + 1] * 1000000 + 0.5)
        ahead[#ahead + 1] = page[i]
      end
    end
    if #page < 200 or (first and first - clock <= window) then break end
    from = from + 100
  end
  if first and first - clock <= window then
    now = first
  elseif first then
    for i = 1, #ahead do call('ZREM', key, ahead[i]) end
    newest = call('ZREVRANGE', key, '0', '0', 'WITHSCORES')[2]
    last = math.floor((newest or 0) * 1000000 + 0.5)
  end
end
a, b = now, last

if newest then
  call('ZREMRANGEBYSCORE', key, '-inf', (now - window) / 1000000)
  used = call('ZCARD', key)
  -- Two windows bound what a foreign score can cause.
  if used > 0 then reset = math.min(math.max(last + window - clock, 1), 2 * window) end
  if used + cost > limit then
    local at = used + cost - limit - 1
    local entry = call('ZRANGE', key, at, at, 'WITHSCORES')
    retry = math.min(math.max(math.floor(entry[2] * 1000000 + 0.5) + window - clock, 1), 2 ^ 53) -- a foreign score may be infinite
    -- The key may have no life from another program, or the window may have
    -- become longer since it got one. Not for another program's clock that is
    -- ahead: it would lock out longer.
    local life = call('PTTL', key)
    if life < 0 or last <= now and life < reset / 1000 then call('PEXPIRE', key, math.ceil(reset / 1000) + 1) end
  end
end
--- take
-- nonce makes the members unique; never a time, since two requests may share
-- an instant.
local now, score = a, a / 1000000
if cost == 1 then
  call('ZADD', key, score, 'm:' .. nonce)
else
  local n = 0
  while n < cost do
    local some = {}
    for _ = 1, math.min(cost - n, 500) do
      n = n + 1
      some[#some + 1] = score
      some[#some + 1] = string.format('m:%s:%.0f', nonce, n)
    end
    call('ZADD', key, unpack(some))
  end
end
used = used + cost
reset = math.min(math.max(math.max(b, now) + window - clock, 1), 2 * window)
call('PEXPIRE', key, math.ceil(reset / 1000) + 1)
