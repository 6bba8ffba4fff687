-- Put a message of a stream aside. KEYS: stream, dead letters, reasons. ARGV:
-- group, id, deliveries, most dead letters. Returns whether it was there.
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
local acked = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
local why = redis.call('HGET', KEYS[3], ARGV[2]) or 'its worker went away'
redis.call('HDEL', KEYS[3], ARGV[2])
if #entry == 0 or acked == 0 then return 0 end
local fields = entry[1][2]
for i = 1, #fields, 2 do
  if fields[i] == 'd' then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'id', ARGV[2], 'why', why, 'n', ARGV[3], 'd', fields[i + 1])
    return 1
  end
end
return 0
