-- Claim a message for the consumer that has it, unless another one has it by
-- now. KEYS: stream. ARGV: group, consumer, id, deliveries to note. Returns it,
-- as XCLAIM does.
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return {} end
return redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4])
