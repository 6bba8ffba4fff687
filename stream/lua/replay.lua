-- Send a dead letter again. KEYS: stream, dead letters. ARGV: its id among the
-- dead, most messages of the stream. Returns its new id, or nothing. It is
-- appended before it is taken out: memory may be full.
local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if not entry then return false end
for i = 1, #entry[2], 2 do
  if entry[2][i] == 'd' then
    local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'd', entry[2][i + 1])
    redis.call('XDEL', KEYS[2], ARGV[1])
    return id
  end
end
return false
