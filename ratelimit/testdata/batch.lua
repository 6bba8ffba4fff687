-- Runs a schedule of steps under a made-up clock, with the shipped scripts as
-- they are: they find another `redis` here, whose TIME is the step's and under
-- which keys live and die by that clock too. It also refuses what must not be:
-- keys that were not passed, numbers that Lua would print, and fractions but for scores.
--
-- The sources stand above this text as functions in `scripts`, each of
-- (redis, KEYS, ARGV).
--
-- ARGV: '1' to return states, and for each step: script, clock, probe, bound, number of keys, their
-- indexes in KEYS, number of arguments, the arguments. script 0 sends its
-- arguments as one plain command; probe is then the life of its key, if any.
-- Returns for each step {reply, state of each key, what the probes said}.
local real = redis.call
local clock, millis, allowed, ends = 0, 0, {}, {}

local function note(key) if real('EXISTS', key) == 0 then ends[key] = nil end end

local fake = {}
function fake.call(cmd, key, ...)
  if cmd == 'TIME' then
    return {string.format('%.0f', math.floor(clock / 1000000)), string.format('%.0f', clock % 1000000)}
  end
  if not allowed[key] then error('a key that was not passed: ' .. tostring(key)) end
  local args = {...}
  for i = 1, #args do
    local a = args[i]
    if type(a) == 'number' then
      local whole = a == math.floor(a) and math.abs(a) < 2 ^ 53
      if not whole and cmd ~= 'ZADD' and cmd ~= 'ZREMRANGEBYSCORE' then error(string.format('%s got %.17g', cmd, a)) end
    elseif type(a) ~= 'string' then
      error(cmd .. ' got a ' .. type(a))
    elseif string.find(a, '^%-?[%d.]+e') then
      error(cmd .. ' got ' .. a)
    end
  end
  if cmd == 'SET' then
    if args[2] ~= 'PX' or tonumber(args[3]) < 1 then error('a key without a life') end
    ends[key] = millis + tonumber(args[3])
    return real('SET', key, args[1])
  elseif cmd == 'PEXPIRE' then
    if real('EXISTS', key) == 1 then ends[key] = millis + tonumber(args[1]) end
    return 1
  elseif cmd == 'PTTL' then
    if real('EXISTS', key) == 0 then return -2 end
    return ends[key] and ends[key] - millis or -1
  end
  local reply = real(cmd, key, ...)
  if cmd == 'DEL' or cmd == 'LTRIM' or cmd == 'ZREM' or cmd == 'ZREMRANGEBYSCORE' then note(key) end
  return reply
end

local function enter(at, keys)
  clock, millis, allowed = at, math.floor(at / 1000), {}
  for i = 1, #keys do
    local key = keys[i]
    allowed[key] = true
    if ends[key] and millis > ends[key] then
      real('DEL', key)
      ends[key] = nil
    end
  end
end

local function run(script, at, keys, args)
  enter(at, keys)
  local reply = scripts[script](fake, keys, args)
  for i = 1, #keys do
    if not ends[keys[i]] and real('EXISTS', keys[i]) == 1 then error('a key without a life: ' .. keys[i]) end
  end
  return reply
end

local function state(key)
  local kind, text = real('TYPE', key).ok, ''
  if kind == 'string' then
    text = real('GET', key)
  elseif kind == 'list' then
    text = table.concat(real('LRANGE', key, '0', '-1'), ' ')
  elseif kind == 'zset' then
    text = table.concat(real('ZRANGE', key, '0', '-1', 'WITHSCORES'), ' ')
  end
  if ends[key] then text = text .. ' until ' .. string.format('%.0f', ends[key]) end
  return text
end

-- A copy of the keys, to ask what would be later.
local function copy(keys)
  local other = {}
  for i = 1, #keys do
    other[i] = keys[i] .. ':probe'
    real('DEL', other[i])
    local all = real('DUMP', keys[i]) -- COPY came with Redis 6.2
    if all then real('RESTORE', other[i], '0', all) end
    ends[other[i]] = ends[keys[i]]
  end
  return other
end

-- How long a reply says to wait: the longest of a group.
local function wait(reply)
  local most = 0
  for i = 1, #reply, 4 do most = math.max(most, reply[i]) end
  return most
end

local p = 0
local function arg() p = p + 1 return ARGV[p] end
local function number() return tonumber(arg()) end
local function several(of)
  local some = {}
  for i = 1, number() do some[i] = of() end
  return some
end

local out, shown = {}, arg() == '1'
while p < #ARGV do
  local script, at, probe, bound = number(), number(), arg(), number()
  local keys = several(function() return KEYS[number()] end)
  local args = several(arg)
  local reply, said = nil, {}
  if script == 0 then
    enter(at, keys)
    reply = {real(unpack(args))}
    for i = 1, #keys do note(keys[i]) end
    if probe ~= '' then ends[keys[1]] = millis + tonumber(probe) end
  else
    reply = run(script, at, keys, args)
    if type(reply) == 'number' then reply = {reply} end
  end
  local states = {}
  for i = 1, shown and #keys or 0 do states[i] = state(keys[i]) end
  -- 1: the same question a microsecond before the wait ends, and when it ends.
  local w = script > 0 and wait(reply) or 0
  if script > 0 and probe == '1' and w > 0 then
    said[1] = wait(run(script, at + w - 1, copy(keys), args))
    said[2] = wait(run(script, at + w, copy(keys), args))
    copy(keys)
  end
  -- 2: peek again and again; is one admitted in the end?
  if bound > 0 then
    local look = {unpack(args)}
    look[1], look[2] = '0', '1'
    local other = copy(keys)
    for i = 1, 3 do said[2 + i] = wait(run(script, at + math.floor(bound * i / 3), other, look)) end
    for i = 1, 2 do said[i] = said[i] or -1 end
  end
  for i = 1, #keys do
    real('DEL', keys[i] .. ':probe')
    ends[keys[i] .. ':probe'] = nil
  end
  out[#out + 1] = {reply, states, said}
end
for i = 1, #KEYS do real('DEL', KEYS[i]) end
return out
