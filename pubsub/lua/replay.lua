-- Send a dead letter again. KEYS: stream, dead letters. ARGV: its id among the
-- dead, most messages of the stream. Returns its new id, or nothing.
local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])
if #entry == 0 then return false end
redis.call('XDEL', KEYS[2], ARGV[1])
local fields = entry[1][2]
for i = 1, #fields, 2 do
  if fields[i] == 'd' then
    return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'd', fields[i + 1])
  end
end
return false
