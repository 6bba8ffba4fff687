-- Replace a value. KEYS: value, lease. ARGV: value, its life in milliseconds.
-- What is being loaded is older than this.
redis.call('DEL', KEYS[2])
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
