-- Claim a message for a consumer. KEYS: stream, reasons, lost. ARGV: group,
-- consumer, id, for how many milliseconds it must have been idle, the consumer
-- that must have it, or none for any, deliveries to note, or none to count one
-- more. Returns whether the stream does not keep it any more, which is counted
-- once, and it, as XCLAIM does, unless somebody else has it by now.
local pending = {'XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[4], ARGV[3], ARGV[3], 1}
if ARGV[5] ~= '' then pending[9] = ARGV[5] end
if #redis.call(unpack(pending)) == 0 then return {0, {}} end
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then
  redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  redis.call('HDEL', KEYS[2], ARGV[3])
  return {1, {}}
end
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[3]}
if ARGV[6] ~= '' then claim[7], claim[8] = 'RETRYCOUNT', ARGV[6] end
return {0, redis.call(unpack(claim))}
