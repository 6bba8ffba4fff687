-- Append the messages that are due to the stream. KEYS: delayed, stream. ARGV: how
-- many at most, most messages of the stream, how many bytes are enough. Returns how
-- many were appended, and in how many milliseconds the next one is due: 0 for now,
-- -1 for none.
--
-- Each is appended before it is removed. What may fail for want of memory comes
-- first; before that, whether the user may remove at all: a message that stays
-- would be appended again and again.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local moved, size, wait = 0, 0, -1
while true do
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if not first[1] then break end
  wait = math.max(tonumber(first[2]) - now, 0)
  if wait > 0 or moved >= tonumber(ARGV[1]) or size >= tonumber(ARGV[3]) then break end
  if moved == 0 then redis.call('ZREM', KEYS[1], '') end -- no member is empty
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'd', string.sub(first[1], 23))
  redis.call('ZREM', KEYS[1], first[1])
  moved, size, wait = moved + 1, size + #first[1], -1
end
return {moved, string.format('%.0f', wait)}
