-- Several limits of one subject, all or none. KEYS: state and block of each.
-- ARGV: verb, nonce, then for each limit: algorithm, cost, limit, window and
-- two texts of its own. Returns {retry, used, reset, extra} of each, flat;
-- used is -1 while it is blocked.
local deciders = {decide_log, decide_set, decide_window, decide_gcra}
local takes = {take_log, take_set, take_window, take_gcra}
local found, out, free = {}, {}, true
for i = 1, #KEYS / 2 do
  local n = 2 + (i - 1) * 6
  local kind, cost, limit, window = tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2]), tonumber(ARGV[n + 3]), tonumber(ARGV[n + 4])
  local retry, used, reset, extra, a, b, c, d = deciders[kind](KEYS[2 * i - 1], cost, limit, window, ARGV[n + 5], ARGV[n + 6])
  if cost == 0 then retry = 0 end -- left out of the count
  local block = blocked(KEYS[2 * i])
  if block > retry then retry = block end
  if retry > 0 then free = false end
  found[i] = {retry, used, math.max(reset, block), extra, block, kind, cost, limit, window, ARGV[n + 5], a, b, c, d}
end
for i = 1, #found do
  local f = found[i]
  if free and ARGV[1] == '1' and f[7] > 0 then
    f[2], f[3], f[4] = takes[f[6]](KEYS[2 * i - 1], f[7], f[8], f[9], f[2],
      f[11], f[12], f[13], f[14], f[10], ARGV[2])
  end
  if f[5] > 0 then f[2] = -1 end
  for j = 1, 4 do out[#out + 1] = f[j] end
end
return out
