-- Restart the life of an entry, if it is still the same one. KEYS[1] the
-- value. ARGV: how it begins, its life in milliseconds.
if redis.call('GETRANGE', KEYS[1], '0', string.len(ARGV[1]) - 1) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
