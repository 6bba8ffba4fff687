-- One limit. KEYS: its state, its block, which may be missing. ARGV: verb, cost,
-- limit, window, own, wait, how, longest wait; own of a sorted set is the nonce.
-- Verbs: 0 look, 1 take if it is free, 2 take anyway, 3 book if the wait is not
-- longer than that. Returns {retry, used, reset, extra}, used -1 while it is
-- blocked; for 3, extra is 1 when it was booked.
local verb, key, blockkey = ARGV[1], KEYS[1], KEYS[2]
local cost, limit, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local own, wait, how, nonce = ARGV[5], ARGV[6], ARGV[7], ARGV[5]
local retry, used, reset, extra, a, b, c, d = 0, 0, 0, 0
do
--- decide
end
local block = 0
if blockkey then
--- blocked
end
if block > retry then retry = block end
if verb == '1' and retry == 0 or verb == '2' or verb == '3' and retry <= tonumber(ARGV[8]) then
--- take
  if verb == '3' then extra = 1 end
elseif verb == '3' then
  extra = 0
end
if block > 0 then
  used = -1
  if block > reset then reset = block end
end
return {retry, used, reset, extra}
