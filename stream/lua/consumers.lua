-- Remove the consumers that crashed processes left behind. KEYS: stream. ARGV:
-- group, how many milliseconds one must have been idle. One with pending
-- messages stays: they would be forgotten with it. Returns how many were removed.
--
-- A failover can make Redis' count of what the group was given too small, for
-- ever. Where it was given all, the count is put right.
local function fields(list)
  local f = {}
  for i = 1, #list, 2 do f[list[i]] = list[i + 1] end
  return f
end
local list = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if list.err then return 0 end
local removed = 0
for _, entry in ipairs(list) do
  local c = fields(entry)
  if c.pending == 0 and c.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c.name)
    removed = removed + 1
  end
end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
for _, entry in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local g = fields(entry)
  if g.name == ARGV[1] and g['last-delivered-id'] == stream['last-generated-id']
    and stream['entries-added'] and g['entries-read'] ~= stream['entries-added'] then
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], g['last-delivered-id'], 'ENTRIESREAD', string.format('%.0f', stream['entries-added']))
  end
end
return removed
