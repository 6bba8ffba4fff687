local function decide_NAME(key, cost, limit, window, own, wait, how)
  local retry, used, reset, extra, a, b, c, d = 0, 0, 0, 0
--- decide
  return retry, used, reset, extra, a, b, c, d
end
local function take_NAME(key, cost, limit, window, used, a, b, c, d, own, nonce)
  local reset, extra = 0, 0
--- take
  return used, reset, extra
end
