-- Put a message of a stream aside, if it still is pending. KEYS: stream, dead
-- letters, reasons, lost. ARGV: group, id, deliveries, most dead letters, reason or
-- nothing, for how many milliseconds it must have been idle, the consumer that
-- must have it, or none for any. Returns 1 when it was put aside, with its id among
-- the dead letters, the reason and the message; 2 when the stream does not keep it any
-- more, which is counted, and 0 when it is not pending.
--
-- What may fail for want of memory comes first: nothing is taken out before.
local pending = {'XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[6], ARGV[2], ARGV[2], 1}
if ARGV[7] ~= '' then pending[9] = ARGV[7] end
if #redis.call(unpack(pending)) == 0 then return {0} end
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
local id, why, text
if entry then
  why = ARGV[5]
  if why == '' then why = redis.call('HGET', KEYS[3], ARGV[2]) or 'its worker went away' end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'd' then text = entry[2][i + 1] end
  end
  -- Somebody else's is kept as it is: field, value, field, value.
  text = text or table.concat(entry[2], '\n')
  id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'id', ARGV[2], 'why', why, 'n', ARGV[3], 'd', text)
end
if not entry then redis.call('HINCRBY', KEYS[4], ARGV[1], 1) end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
if entry then return {1, id, why, text} end
return {2}
