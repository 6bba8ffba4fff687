-- Read new messages for a consumer without waiting, count what the group lost,
-- and trim what all groups have done. KEYS: stream, lost. ARGV: group, consumer,
-- how many messages, most messages of the stream, whether to trim. Returns how
-- many were lost now, how many wait for the group (-1: unknown), and messages.
--
-- A group has lost messages where the oldest that is kept comes after the last
-- that it was given, and the stream is full: trimming here takes out nothing that
-- a group was not given, so that it was MAXLEN. How many is what was ever added,
-- but for what is kept, but for what the group was given.
local function fields(list)
  local f = {}
  for i = 1, #list, 2 do f[list[i]] = list[i + 1] end
  return f
end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function later(a, b)
  local ams, aseq = parts(a)
  local bms, bseq = parts(b)
  return ams > bms or ams == bms and aseq > bseq
end
local list = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if list.err then return {0, 0, {}} end
local groups, own = {}, nil
for i, entry in ipairs(list) do
  groups[i] = fields(entry)
  if groups[i].name == ARGV[1] then own = groups[i] end
end
if not own then return {0, 0, {}} end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local first, last, added = stream['first-entry'], own['last-delivered-id'], stream['entries-added']
local lost, waiting = 0, own.lag or -1
local behind = first and later(first[1], last)
if behind then waiting = stream.length end
if added then
  local gone, given = added - stream.length, own['entries-read']
  local right = given
  if behind and not later(stream['max-deleted-entry-id'], last) then
    if given and stream.length >= tonumber(ARGV[4]) then lost = math.max(gone - given, 0) end
    right = gone
  elseif last == stream['last-generated-id'] then
    right, waiting = added, 0
  end
  if right and right ~= given then -- a failover can lose Redis' own count, and a jump over lost ones does
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], last, 'ENTRIESREAD', string.format('%.0f', right))
  end
  if lost > 0 then redis.call('HINCRBY', KEYS[2], ARGV[1], string.format('%.0f', lost)) end
end
local messages = {}
if tonumber(ARGV[3]) > 0 then
  local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>')
  if read then messages = read[1][2] end
end
if ARGV[5] == '1' then
  local keep
  for _, g in ipairs(groups) do
    local ms, seq = string.match(g['last-delivered-id'], '^(%d+)-(%d+)$')
    if #seq > 15 then return {lost, waiting, messages} end -- no number of Lua's
    local from = ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
    if g.pending > 0 then -- later than what comes next, where the group was set back
      local oldest = redis.call('XPENDING', KEYS[1], g.name)[2]
      if later(from, oldest) then from = oldest end
    end
    if not keep or later(keep, from) then keep = from end
  end
  -- Whole nodes first, so many at once that others do not wait for it.
  local n = redis.pcall('XTRIM', KEYS[1], 'MINID', '~', keep, 'LIMIT', 10000)
  if type(n) == 'number' and n < 5000 then redis.call('XTRIM', KEYS[1], 'MINID', keep) end
end
return {lost, waiting, messages}
