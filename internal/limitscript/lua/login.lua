-- Attempts to log in. KEYS: the attempts, as set.lua has them; then the blocks,
-- where there are any: "until:length:how many so far".
-- ARGV: verb, limit, window, nonce, how long blocks are remembered after their
-- end, how many lengths follow, and the lengths; the last is also that of all
-- further blocks.
-- Verbs: 0 look, 1 count an attempt if it is admitted, 2 count it anyway.
-- Returns {retry, used, reset, more}, after 2 those of a further attempt. more
-- is set by 0 only: when one more is free than now.
local attempts, blocks = KEYS[1], KEYS[2]
local verb, limit, window, memory = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5] or '0')

local till, length, times = 0, 0, 0
local state = blocks and call('GET', blocks)
local function store()
  call('SET', blocks, string.format('%.0f:%.0f:%.0f', till, length, times), 'PX', math.ceil((till - clock + memory) / 1000) + 1)
end
if state then
  local a, b, c = string.match(state, '^(%d+):(%d+):(%d+)$')
  till, length, times = tonumber(a), tonumber(b), tonumber(c)
  if length > 2 ^ 53 then error('no block of a login') end -- longer than any
  if till - clock > length then -- the clock was put back
    till = clock + length
    store()
  end
  -- What led to a block is paid for when the block ends.
  if till <= clock then call('ZREMRANGEBYSCORE', attempts, '-inf', string.format('(%.17g', till / 1000000)) end
end

local retry, used, reset, more, now, last = decide_set(attempts, 1, limit, window)
if clock >= till and (verb == '2' or verb == '1' and retry == 0) then
  used, reset = take_set(attempts, 1, limit, window, used, now, last, nil, nil, nil, ARGV[4])
  if verb == '2' then
    -- Older ones than the last limit decide nothing.
    call('ZREMRANGEBYRANK', attempts, '0', -limit - 1)
    retry, used, reset = decide_set(attempts, 1, limit, window)
  end
  if blocks and used >= limit then
    times = times + 1
    length = tonumber(ARGV[6 + math.min(times, tonumber(ARGV[6]))])
    till = clock + length
    store()
    if verb == '2' then retry = length end
    reset = length
  end
elseif clock < till then
  used, retry, reset = math.max(used, limit), till - clock, till - clock
end
if verb == '0' then
  more = retry
  if retry == 0 and used > 0 then
    more = math.floor(call('ZRANGE', attempts, '0', '0', 'WITHSCORES')[2] * 1000000 + 0.5) + window - clock
    more = math.min(math.max(more, 1), 2 ^ 53)
  end
end
return {retry, used, reset, more}
