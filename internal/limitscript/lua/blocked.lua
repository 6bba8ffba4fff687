-- How long a subject is still blocked: block stays 0, or is microseconds. The
-- value is "until:length". A clock that was put back must not prolong a block
-- beyond its length.
local value = call('GET', blockkey)
if value then
  local colon = string.find(value, ':', 1, true)
  local till, length = tonumber(string.sub(value, 1, colon - 1)), tonumber(string.sub(value, colon + 1))
  if length > 2 ^ 53 then error('no block of a limit') end -- longer than any
  if till - clock > length then
    till = clock + length
    call('SET', blockkey, string.format('%.0f:%.0f', till, length), 'PX', math.ceil(length / 1000) + 1)
  end
  block = math.max(till - clock, 0)
end
