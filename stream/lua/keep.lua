-- Claim messages again for the consumer that has them. Those that another one has
-- by now are left to it, however late this comes. KEYS: stream, reasons, lost.
-- ARGV: group, consumer, how many milliseconds they count as idle, why they failed
-- or nothing, ids. Returns the ids of those that the stream does not keep any more.
-- With KEYS[1] alone, while a slot moves, the caller counts losses and stores
-- reasons.
--
-- Since Redis 7 XCLAIM takes those from the consumer, so that no one sees them
-- again. They count as lost at once; who has one done in the end takes that back.
local gone = {}
for i = 5, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) > 0 then
    local got = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
    if #got == 0 then
      gone[#gone + 1] = ARGV[i]
      if KEYS[3] then
        redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
        redis.call('HDEL', KEYS[2], ARGV[i])
      end
    elseif ARGV[4] ~= '' and KEYS[2] then
      redis.pcall('HSET', KEYS[2], ARGV[i], ARGV[4]) -- memory may be full: then it is tried again all the same
    end
  end
end
return gone
