-- Look at the sessions of a user. KEYS: epoch of the user, index of the user,
-- the sessions. ARGV: the user. Returns the clock, and for each session
-- {created, ends, idle, left, device}, or 0 where it is none that counts.
local epoch = call('GET', KEYS[1])
local out = {string.format('%.0f', clock)}
for i = 3, #KEYS do
  local f = call('HMGET', KEYS[i], 'c', 'a', 'i', 'u', 'e', 'm', 'x')
  local left, valid = call('PTTL', KEYS[i]), epoch and f[4] == ARGV[1] and (f[5] == epoch or f[7]) and clock < tonumber(f[2])
  if valid and f[7] then -- rotated a moment ago
    valid, left = call('ZSCORE', KEYS[2], f[7]), tonumber(f[3])
  end
  out[#out + 1] = valid and {f[1], f[2], f[3], left, f[6]} or 0
end
return out
