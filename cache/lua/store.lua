-- End a load. KEYS: value, lease. ARGV: token, what to do: "set" with the value
-- and its life in milliseconds, "fail" with a text and how long others do not
-- try, "drop", "remove" the value too. Nothing is done when the lease is no
-- longer held: the value was removed or replaced since the load began. Returns 1
-- when it was held.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[2] == 'fail' then
  redis.call('SET', KEYS[2], '!' .. ARGV[3], 'PX', ARGV[4])
  return 1
end
local done = 1
if ARGV[2] == 'set' then -- first: a Redis that is full refuses no later write
  local set = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  if set.err then done = set end
elseif ARGV[2] == 'remove' then
  redis.call('DEL', KEYS[1])
end
redis.call('DEL', KEYS[2])
return done
