-- Remove a delayed message. KEYS: delayed. ARGV: when it is due, its 8 digits, its
-- nonce. Returns whether it was there.
local from = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1])
local to = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[1]) - 1
while from <= to do
  local middle = math.floor((from + to) / 2)
  local member = redis.call('ZRANGE', KEYS[1], string.format('%.0f', middle), string.format('%.0f', middle))[1]
  local seq, wanted = tonumber(string.sub(member, 1, 8)), tonumber(ARGV[2])
  if seq == wanted then
    if string.sub(member, 10, 21) ~= ARGV[3] then return 0 end
    return redis.call('ZREM', KEYS[1], member)
  end
  if seq < wanted then from = middle + 1 else to = middle - 1 end
end
return 0
