-- One limit. KEYS: its state, its block. ARGV: verb, then what judge takes.
-- Verbs: 0 look, 1 take if it is free, 2 take anyway, 3 book if the wait is at
-- most ARGV[8]. Returns {retry, used, reset, extra}, used -1 while it is
-- blocked; for 3, extra is 1 when it was booked.
local verb = ARGV[1]
local retry, used, reset, extra, commit = judge(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]),
  tonumber(ARGV[4]), tonumber(ARGV[5] or '0'), tonumber(ARGV[6] or '0'), tonumber(ARGV[7] or '0'), ARGV[8])
local block = blocked(KEYS[2])
if block > retry then retry = block end
if verb == '2' or verb == '1' and retry == 0 then
  used, reset, extra = commit()
elseif verb == '3' then
  extra = 0
  if retry <= tonumber(ARGV[8]) then
    used, reset = commit()
    extra = 1
  end
end
if block > 0 then used = -1 end
return {retry, used, math.max(reset, block), extra}
