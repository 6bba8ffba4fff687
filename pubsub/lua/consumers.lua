-- Remove the consumers that crashed processes left behind. KEYS: stream. ARGV:
-- group, how many milliseconds one must have been idle. One with pending
-- messages stays: they would be forgotten with it. Returns how many were removed.
local list = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if list.err then return 0 end
local removed = 0
for _, fields in ipairs(list) do
  local c = {}
  for i = 1, #fields, 2 do c[fields[i]] = fields[i + 1] end
  if c.pending == 0 and c.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c.name)
    removed = removed + 1
  end
end
return removed
