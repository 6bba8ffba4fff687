-- GCRA (ATM Forum TM 4.0; the virtual scheduling form) in integers. One token
-- takes window/limit microseconds, kept as (whole, rest/limit). State:
-- "whole:rest:limit" of the theoretical arrival time. It is never later than
-- now + burst + wait, so neither a clock that was put back nor a smaller burst
-- locks anybody out for longer than one refill.
--
-- used and extra tell what is free: whole microseconds, and the rest over
-- limit; the caller divides by the time of a token. how: 0 all of cost or
-- nothing, 1 give cost back, 2 take it down to empty, 3 take what there is up
-- to cost (extra is then the number taken times limit, and the rest).
local function judge_gcra(key, cost, limit, window, burst, wait, how)
  local q, r = math.floor(window / limit), window % limit
  local function tokens(n) return n * q + math.floor(n * r / limit), n * r % limit end
  local function plus(a, af, b, bf)
    local whole, rest = a + b, af + bf
    if rest >= limit then whole, rest = whole + 1, rest - limit end
    return whole, rest
  end
  local function minus(a, af, b, bf)
    local whole, rest = a - b, af - bf
    if rest < 0 then whole, rest = whole - 1, rest + limit end
    return whole, rest
  end
  local function later(a, af, b, bf) return a > b or a == b and af > bf end
  local function up(whole, rest) if rest > 0 then return whole + 1 end return whole end

  local full, fullrest = tokens(burst) -- how far ahead of now is empty
  full, fullrest = plus(clock, 0, full, fullrest)
  local tat, rest = clock, 0
  local state = redis.call('GET', key)
  if state then
    local a, b, l = string.match(state, '^(%d+):(%d+):(%d+)$')
    tat, rest = tonumber(a), tonumber(b)
    if tonumber(l) ~= limit and rest > 0 then tat, rest = tat + 1, 0 end
    if later(tat, rest, full + wait, fullrest) then
      -- Kept at once: it comes nearer even if nobody is admitted.
      tat, rest = full + wait, fullrest
      redis.call('SET', key, int(tat) .. ':' .. int(rest) .. ':' .. int(limit), 'PX', life(tat - clock + 1))
    end
    if tat < clock then tat, rest = clock, 0 end
  end

  local function free(whole, part)
    if later(whole, part, full, fullrest) then return 0, 0 end
    return minus(full, fullrest, whole, part)
  end
  local function store(whole, part)
    if later(whole, part, clock, 0) then
      redis.call('SET', key, int(whole) .. ':' .. int(part) .. ':' .. int(limit), 'PX', life(whole - clock + 1))
    else
      redis.call('DEL', key)
      whole, part = clock, 0
    end
    local f, fr = free(whole, part)
    return f, up(whole, part) - clock, fr
  end

  local f, fr = free(tat, rest)
  if how == 1 then
    local whole, part = minus(tat, rest, tokens(cost))
    return 0, f, 0, fr, function() return store(whole, part) end
  end
  local taken = 0
  if how == 3 then
    local none, most = 0, cost + 1 -- the most tokens that fit into what is free
    while most - none > 1 do
      local n = math.floor((none + most) / 2)
      local whole, part = tokens(n)
      if later(whole, part, f, fr) then most = n else none = n end
    end
    taken = none
    cost = math.max(taken, 1)
  end
  local new, part = plus(tat, rest, tokens(cost))
  local retry = 0
  if later(new, part, full, fullrest) then
    retry = up(minus(new, part, full, fullrest))
    if how == 2 then
      new, part, retry = full, fullrest, 0
      if later(tat, rest, new, part) then new, part = tat, rest end
    end
  end
  return retry, f, up(tat, rest) - clock, fr, function()
    local left, reset, leftrest = store(new, part)
    return left, reset, taken * limit + leftrest
  end
end
