-- Replace a value. KEYS: value, lease. ARGV: value, its life in milliseconds.
-- What is being loaded is older than this. SET comes first: only the first
-- write of a script is refused by a Redis that is full.
local done = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return done
