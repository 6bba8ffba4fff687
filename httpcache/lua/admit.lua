-- Admit one more variant of a URL. KEYS[1] a hash: of each variant its end in
-- milliseconds and where it is stored. ARGV: the variant, where it is to be
-- stored, its life in milliseconds, how many there may be, whether it may take
-- the place of the one that ends first. Returns {1 or 0, what to remove}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all = redis.pcall('HGETALL', KEYS[1])
if all.err then
  redis.call('DEL', KEYS[1])
  all = {}
end
local n, mine, first, ends, gone, victims = 0, nil, nil, math.huge, {}, {}
for i = 1, #all, 2 do
  local stop, form = string.match(all[i + 1], '^(%d+) (.*)$')
  stop = tonumber(stop)
  if all[i] == ARGV[1] then
    mine = form
  elseif not stop or stop <= now then
    gone[#gone + 1] = all[i]
  else
    n = n + 1
    if stop < ends then first, ends = i, stop end
  end
end
if not mine and n >= tonumber(ARGV[4]) then
  if ARGV[5] ~= '1' then return {0} end
  gone[#gone + 1] = all[first]
  victims[1] = string.match(all[first + 1], '^%d+ (.*)$')
elseif mine and mine ~= ARGV[2] then
  victims[1] = mine
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now + ARGV[3]) .. ARGV[2]) -- first: a Redis that is full refuses no later write
for i = 1, #gone do redis.call('HDEL', KEYS[1], gone[i]) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return {1, unpack(victims)}
