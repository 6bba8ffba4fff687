-- Exact sliding window log in a list: one integer for each admitted request,
-- the newest at the head. An entry of age exactly one window is free.
local function judge_log(key, cost, limit, window)
  local head = tonumber(redis.call('LINDEX', key, '0') or '0')
  -- Time never goes back here: after a failover to a slower clock, now is that
  -- of the newest entry. One more than a window ahead is not believed, so that
  -- a broken clock locks nobody out for longer than two windows.
  local now = clock
  if head > clock then
    if head - clock <= window then
      now = head
    else
      local n = 0
      while true do
        local page = redis.call('LRANGE', key, int(n), int(n + 99))
        local i = 1
        while page[i] and tonumber(page[i]) > clock do i = i + 1 end
        n = n + i - 1
        if i <= 100 then break end
      end
      redis.call('LTRIM', key, int(n), '-1')
      head = tonumber(redis.call('LINDEX', key, '0') or '0')
    end
  end

  local count = 0
  if head > 0 then
    local tail = redis.call('LINDEX', key, '-1')
    if tail and tonumber(tail) <= now - window then
      local n, size = 1, 4 -- few in the steady state
      while true do
        local page = redis.call('LRANGE', key, int(-n - size), int(-n - 1))
        local i = #page
        while i > 0 and tonumber(page[i]) <= now - window do i = i - 1 end
        n = n + #page - i
        if i > 0 or #page < size then break end
        size = math.min(4 * size, 256)
      end
      redis.call('LTRIM', key, '0', int(-n - 1))
    end
    count = redis.call('LLEN', key)
  end

  local retry = 0
  if count + cost > limit then
    local entry = redis.call('LINDEX', key, int(limit - count - cost))
    -- Told by the clock that will be asked next, not by one held back.
    retry = math.max(tonumber(entry) + window - clock, 1)
  end
  local reset = 0
  if count > 0 then
    reset = head + window - clock
    if retry > 0 then keep(key, reset) end
  end
  return retry, count, reset, 0, function()
    if cost == 1 then
      redis.call('LPUSH', key, int(now))
    else
      local stamp, left = int(now), cost
      while left > 0 do
        local some = {}
        for i = 1, math.min(left, 500) do some[i] = stamp end
        redis.call('LPUSH', key, unpack(some))
        left = left - #some
      end
    end
    reset = now + window - clock
    redis.call('PEXPIRE', key, life(reset))
    return count + cost, reset, 0
  end
end
