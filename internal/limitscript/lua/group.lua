-- Several limits of one subject, all or none. KEYS: state and block of each.
-- ARGV: verb, nonce, then for each limit: algorithm, cost, limit, window and
-- two values of its own. Returns {retry, used, reset, extra} of each, flat;
-- used is -1 while it is blocked.
local judges = {judge_log, judge_set, judge_window, judge_gcra}
local found, out, free = {}, {}, true
for i = 1, #KEYS / 2 do
  local a = 2 + (i - 1) * 6
  local retry, used, reset, extra, commit = judges[tonumber(ARGV[a + 1])](KEYS[2 * i - 1], tonumber(ARGV[a + 2]),
    tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6]), 0, ARGV[2])
  if ARGV[a + 2] == '0' then retry, commit = 0, nil end -- left out of the count
  local block = blocked(KEYS[2 * i])
  if block > retry then retry = block end
  if retry > 0 then free = false end
  found[i] = {retry, used, math.max(reset, block), extra, commit, block}
end
for i = 1, #found do
  local f = found[i]
  if free and ARGV[1] == '1' and f[5] then f[2], f[3], f[4] = f[5]() end
  if f[6] > 0 then f[2] = -1 end
  for j = 1, 4 do out[#out + 1] = f[j] end
end
return out
