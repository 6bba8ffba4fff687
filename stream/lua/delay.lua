-- Keep a message until it is due. KEYS: delayed. ARGV: "in" or "at", milliseconds
-- from now or since 1970, most delayed messages, a nonce of 12 bytes, payload.
-- Returns its id, or nothing where there are too many, or no number is left for
-- that millisecond.
--
-- A member is 8 digits, the nonce and the payload: those that are due in the same
-- millisecond are in the order in which they came.
local due = tonumber(ARGV[2])
if ARGV[1] == 'in' then
  local t = redis.call('TIME')
  due = tonumber(t[1]) * 1000 + math.ceil(tonumber(t[2]) / 1000) + due
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return false end
local score = string.format('%.0f', due)
local last = redis.call('ZREVRANGEBYSCORE', KEYS[1], score, score, 'LIMIT', 0, 1)[1]
local seq = 0
if last then seq = tonumber(string.sub(last, 1, 8)) + 1 end
if seq > 99999999 then return false end
local id = string.format('%08.0f', seq) .. '-' .. ARGV[4]
redis.call('ZADD', KEYS[1], score, id .. '-' .. ARGV[5])
return score .. '-' .. id
