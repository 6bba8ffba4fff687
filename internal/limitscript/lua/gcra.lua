-- GCRA (ATM Forum TM 4.0; the virtual scheduling form) in integers. One token
-- takes window/limit microseconds, kept as (whole, part/limit). State:
-- "whole:part:limit" of the theoretical arrival time. It is never later than
-- now + burst + wait, so neither a clock that was put back nor a smaller burst
-- locks a subject out for longer than one refill.
--
-- own is the burst. used and extra are what is free: whole microseconds, and
-- the part over limit; the caller divides by the time of a token. how: 0 all of
-- cost or nothing, 1 give cost back, 2 take it down to empty, 3 take what there
-- is up to cost (extra is then the number taken times limit, and the part).
--- decide
-- n tokens take n * each + floor(n * left / limit), and a part of n * left % limit.
local left = window % limit
local each = (window - left) / limit
local full, fullpart = clock + own * each, own * left % limit -- how far ahead of now is empty
full = full + (own * left - fullpart) / limit

local tat, part = clock, 0
local state = call('GET', key)
if state then
  local x, y, l = string.match(state, '^(%d+):(%d+):(%d+)$')
  tat, part = tonumber(x), tonumber(y)
  if part > 0 and tonumber(l) ~= limit then tat, part = tat + 1, 0 end
  local most = full + wait
  if tat > most or tat == most and part > fullpart then
    -- Kept at once: it comes nearer even if no request is admitted.
    tat, part = most, fullpart
    call('SET', key, string.format('%.0f:%.0f:%.0f', tat, part, limit), 'PX', math.ceil((tat - clock + 1) / 1000) + 1)
  end
  if tat < clock then tat, part = clock, 0 end
end

used, extra = full - tat, fullpart - part
if extra < 0 then used, extra = used - 1, extra + limit end
if used < 0 then used, extra = 0, 0 end

local taken = 0
if how == '3' then
  local none, most = 0, cost + 1 -- the most tokens that fit into what is free
  while most - none > 1 do
    local n = math.floor((none + most) / 2)
    local rest = n * left % limit
    local whole = n * each + (n * left - rest) / limit
    if whole > used or whole == used and rest > extra then most = n else none = n end
  end
  taken = none
  cost = math.max(taken, 1)
end

local newpart = cost * left % limit
local new = cost * each + (cost * left - newpart) / limit
if how == '1' then
  new, newpart = tat - new, part - newpart
  if newpart < 0 then new, newpart = new - 1, newpart + limit end
  if new < clock then new, newpart = clock, 0 end
else
  reset = tat - clock
  if part > 0 then reset = reset + 1 end
  new, newpart = tat + new, part + newpart
  if newpart >= limit then new, newpart = new + 1, newpart - limit end
  if new > full or new == full and newpart > fullpart then
    if how ~= '2' then
      retry = new - full
      if newpart > fullpart then retry = retry + 1 end
    elseif tat > full or tat == full and part > fullpart then
      new, newpart = tat, part
    else
      new, newpart = full, fullpart
    end
  end
end
a, b, c, d = new, newpart, full, fullpart + taken * limit
--- take
reset = a - clock
if b > 0 then reset = reset + 1 end
if reset > 0 then
  call('SET', key, string.format('%.0f:%.0f:%.0f', a, b, limit), 'PX', math.ceil((a - clock + 1) / 1000) + 1)
else
  call('DEL', key)
end
local taken = d - d % limit
used, extra = c - a, d - taken - b
if extra < 0 then used, extra = used - 1, extra + limit end
if used < 0 then used, extra = 0, 0 end
extra = extra + taken
