-- What every script of this package begins with. Times are whole microseconds
-- of the server's clock; a Lua number holds them exactly until the year 2255.
-- Numbers handed to a command go through int: Lua itself may print them with
-- an exponent.
local t = redis.call('TIME')
local clock = tonumber(t[1]) * 1000000 + tonumber(t[2])

local function int(n) return string.format('%.0f', n) end

-- Life of a key that must not go before `us` have passed, in milliseconds.
local function life(us) return int(math.ceil(us / 1000) + 1) end

-- Sees to it that a key does not go before `us` have passed: the window may
-- have become longer since it was written.
local function keep(key, us)
  if redis.call('PTTL', key) < us / 1000 then redis.call('PEXPIRE', key, life(us)) end
end

-- How long a subject is still blocked: 0, or microseconds. The value is
-- "until:length". A clock that was put back must not prolong a block beyond
-- its length.
local function blocked(key)
  if not key then return 0 end
  local value = redis.call('GET', key)
  if not value then return 0 end
  local colon = string.find(value, ':', 1, true)
  local till, length = tonumber(string.sub(value, 1, colon - 1)), tonumber(string.sub(value, colon + 1))
  if till - clock > length then
    till = clock + length
    redis.call('SET', key, int(till) .. ':' .. int(length), 'PX', life(length))
  end
  return math.max(till - clock, 0)
end

-- Every algorithm is one function of (key, cost, limit, window, and three
-- values of its own). It changes nothing that a later question could see, and
-- returns
--   retry   0: admitted; otherwise how long until cost would be
--   used    how much of the limit is taken now
--   reset   how long until nothing is taken
--   extra   one more number, for the caller
--   commit  takes the cost; returns used, reset and extra as they are then
