-- Exact sliding window log in a list: one integer for each admitted request,
-- the newest at the head. An entry of age exactly one window is free. Up to
-- two that are free stay at the tail, and do not count. own is the life of a
-- key of one window, in milliseconds.
--- decide
local head = tonumber(call('LINDEX', key, '0') or '0')
-- Time never goes back here: after a failover to a slower clock, now is that
-- of the newest entry. One more than a window ahead is not believed, so that
-- a broken clock locks no subject out for longer than two windows.
local now = clock
if head > clock then
  if head - clock <= window then
    now = head
  else
    local n = 0
    while true do
      local page = call('LRANGE', key, n, n + 99)
      local i = 1
      while page[i] and tonumber(page[i]) > clock do i = i + 1 end
      n = n + i - 1
      if i <= 100 then break end
    end
    call('LTRIM', key, n, '-1')
    head = tonumber(call('LINDEX', key, '0') or '0')
  end
end
a = now

if head > 0 then
  -- The tail: few are free in the steady state.
  local old, free, size = now - window, 0, 4
  local page = call('LRANGE', key, '-4', '-1')
  while true do
    local i = #page
    while i > 0 and tonumber(page[i]) <= old do i = i - 1 end
    free = free + #page - i
    if i > 0 or #page < size then break end
    size = math.min(4 * size, 256)
    page = call('LRANGE', key, -free - size, -free - 1)
  end
  if free >= 3 then
    call('LTRIM', key, '0', -free - 1)
    free = 0
  end
  used = call('LLEN', key) - free
  if used > 0 then reset = head + window - clock end
  if used + cost > limit then
    local entry = call('LINDEX', key, limit - cost - used - free)
    -- By the clock of the next call, not by one that is held back.
    retry = math.max(entry + window - clock, 1)
    -- The window may have become longer since the key got its life.
    if call('PTTL', key) < reset / 1000 then call('PEXPIRE', key, math.ceil(reset / 1000) + 1) end
  end
end
--- take
local now = a
-- Usually both texts are there already, and numbers cost Redis more.
local stamp = now == clock and #t[2] == 6 and t[1] .. t[2] or string.format('%.0f', now)
if cost == 1 then
  call('LPUSH', key, stamp)
else
  local left = cost
  while left > 0 do
    local some = {}
    for i = 1, math.min(left, 500) do some[i] = stamp end
    call('LPUSH', key, unpack(some))
    left = left - #some
  end
end
used = used + cost
reset = now + window - clock
call('PEXPIRE', key, reset == window and own or math.ceil(reset / 1000) + 1)
