-- A tag's two generations, 16 hexadecimal digits each. KEYS[1] the tag. ARGV:
-- two new generations, least life in milliseconds, what to do: keep it (make
-- it where it is missing, prolong it), delete (replace both), expire (replace
-- the second). What is no tag is replaced.
local old = redis.pcall('GET', KEYS[1])
local value = ARGV[1]
if type(old) == 'string' and string.len(old) == 32 and not string.find(old, '[^0-9a-f]') then
  if ARGV[3] == 'keep' then
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
    return old
  elseif ARGV[3] == 'expire' then
    value = string.sub(old, 1, 16) .. string.sub(ARGV[1], 17)
  end
end
local life = math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2]))
redis.call('SET', KEYS[1], value, 'PX', string.format('%.0f', life))
return value
