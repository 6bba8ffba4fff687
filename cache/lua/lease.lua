-- Take the right to load a value. KEYS: value, lease. ARGV: token, life in
-- milliseconds. Returns {1, value, its life} when it was taken, with what is
-- there by now; {0, life of the lease} when another has it; {2, text, life}
-- when a load has just failed.
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local value = redis.pcall('GET', KEYS[1])
  if type(value) == 'table' then value = false end -- another type is no value
  return {1, value, redis.call('PTTL', KEYS[1])}
end
local holder = redis.call('GET', KEYS[2])
local life = redis.call('PTTL', KEYS[2])
if life < 0 then -- somebody took its life away
  life = tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
if string.sub(holder, 1, 1) == '!' then
  return {2, string.sub(holder, 2), life}
end
return {0, life}
