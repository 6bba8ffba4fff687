-- Claim messages anew for the consumer that has them. Those that another one has
-- by now are left to it, however late this comes. KEYS: stream, reasons. ARGV:
-- group, consumer, how many milliseconds they count as idle, why they failed or
-- nothing, ids.
for i = 5, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
    -- Memory may be full: then it is tried again all the same.
    if ARGV[4] ~= '' then redis.pcall('HSET', KEYS[2], ARGV[i], ARGV[4]) end
  end
end
return 0
