local function blocked(blockkey)
  local block = 0
--- blocked
  return block
end
