-- Block a subject. KEYS[1] its block. ARGV[1] how long, microseconds.
redis.call('SET', KEYS[1], int(clock + tonumber(ARGV[1])) .. ':' .. ARGV[1], 'PX', life(tonumber(ARGV[1])))
return 1
