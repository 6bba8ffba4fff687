-- Sliding window in K buckets (own) and the one that is partly left, which
-- counts in full: never over the limit in any window; what was taken comes back
-- at most one bucket late. State: "width;index of the newest bucket;counts",
-- the newest first.
local function store_window(key, counts, index, buckets, width)
  local last = buckets + 1
  while counts[last] == 0 do last = last - 1 end
  local state = string.format('%.0f;%.0f;', width, index) .. table.concat(counts, ',', 1, last)
  local free = (index + buckets + 1) * width - clock -- how long until the newest is
  call('SET', key, state, 'PX', math.ceil(free / 1000) + 1)
  return free
end
--- decide
local buckets = tonumber(own)
local width = math.ceil(window / buckets)
local index = math.floor(clock / width)
local counts = {} -- by age: [1] is the newest bucket
for i = 1, buckets + 1 do counts[i] = 0 end
local state = call('GET', key)
local cut, newest = false, nil
if state then
  local w, first, rest = string.match(state, '^(%d+);(%d+);(.*)$')
  w, first = tonumber(w), tonumber(first)
  local ahead = first * w - clock
  if w == width and ahead > 0 then
    -- Time never goes back; a bucket more than a window ahead is not believed.
    if ahead <= window then index = first else cut = true end
  end
  local bucket = first
  for text in string.gmatch(rest, '%d+') do
    if text ~= '0' then
      local at = bucket
      if w ~= width then
        -- Cut again: it counts as if all came at its end, or now.
        at = math.floor(((bucket + 1) * w - 1) / width)
        if at > index then at, cut = index, true end
      end
      local age = index - at
      if age >= 0 and age <= buckets then
        counts[age + 1] = counts[age + 1] + text
        used = used + text
        if not newest or age < newest then newest = age end
      end
    end
    bucket = bucket - 1
  end
end
a, b, c, d = counts, index, buckets, width

-- What depends on the clock is kept at once: so what is not believed now is
-- not believed later, and waiting times stay true. The rest is not kept before
-- something is admitted. Cutting makes it younger, and where two programs with
-- other buckets took turns it would never grow old.
if cut then
  if used > 0 then store_window(key, counts, index, buckets, width) else call('DEL', key) end
end

-- A bucket is free (its index + buckets + 1) * width after the beginning.
local free = (index + buckets + 1) * width - clock
if newest then reset = free - newest * width end
if used + cost > limit then
  local left = used
  for age = buckets, 0, -1 do
    left = left - counts[age + 1]
    if left + cost <= limit then
      retry = math.max(free - age * width, 1)
      break
    end
  end
  -- The window may have become longer since the key got its life.
  if call('PTTL', key) < reset / 1000 then call('PEXPIRE', key, math.ceil(reset / 1000) + 1) end
end
--- take
a[1] = a[1] + cost
used = used + cost
reset = store_window(key, a, b, c, d)
