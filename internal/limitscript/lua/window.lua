-- Sliding window in K buckets and the one that is partly left, which counts in
-- full: never over the limit in any window; what was taken comes back at most
-- one bucket late. State: "width;index of the newest bucket;counts", the
-- newest first.
local function judge_window(key, cost, limit, window, buckets)
  local width = math.ceil(window / buckets)
  local index = math.floor(clock / width)
  local counts = {} -- by age: [0] is the newest bucket
  for age = 0, buckets do counts[age] = 0 end
  local state = redis.call('GET', key)
  local cut = false
  if state then
    local w, newest, rest = string.match(state, '^(%d+);(%d+);(.*)$')
    w, newest = tonumber(w), tonumber(newest)
    local ahead = newest * w - clock
    if w == width and ahead > 0 then
      -- Time never goes back; a bucket more than a window ahead is not believed.
      if ahead <= window then index = newest else cut = true end
    end
    local bucket = newest
    for text in string.gmatch(rest, '%d+') do
      local n = tonumber(text)
      if n > 0 then
        local at = bucket
        if w ~= width then
          -- Cut anew: it counts as if all came at its end, or now.
          at = math.floor(((bucket + 1) * w - 1) / width)
          if at > index then at, cut = index, true end
        end
        local age = index - at
        if age >= 0 and age <= buckets then counts[age] = counts[age] + n end
      end
      bucket = bucket - 1
    end
  end

  local function leaves(age) return (index - age + buckets + 1) * width - clock end
  local function store()
    local last = buckets
    while counts[last] == 0 do last = last - 1 end
    local text = {}
    for age = 0, last do text[age + 1] = int(counts[age]) end
    redis.call('SET', key, int(width) .. ';' .. int(index) .. ';' .. table.concat(text, ','), 'PX', life(leaves(0)))
  end

  local used, newest = 0, nil
  for age = buckets, 0, -1 do
    used = used + counts[age]
    if counts[age] > 0 then newest = age end
  end
  -- What depends on the clock is kept at once: so what is not believed now is
  -- not believed later, and waiting times stay true. The rest is not kept before
  -- something is admitted. Cutting makes it younger, and where two programs with
  -- other buckets took turns it would never grow old.
  if cut then
    if used > 0 then store() else redis.call('DEL', key) end
  end

  local retry = 0
  if used + cost > limit then
    local left = used
    for age = buckets, 0, -1 do
      left = left - counts[age]
      if left + cost <= limit then
        retry = math.max(leaves(age), 1)
        break
      end
    end
  end
  local reset = 0
  if newest then reset = leaves(newest) end
  if retry > 0 then keep(key, reset) end
  return retry, used, reset, 0, function()
    counts[0] = counts[0] + cost
    store()
    return used + cost, leaves(0), 0
  end
end
