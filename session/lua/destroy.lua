-- End one session. ARGV: member. Returns whether there was one.
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('DEL', KEYS[1])
