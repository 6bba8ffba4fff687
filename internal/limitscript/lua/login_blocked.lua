-- How long an identifier of logins is still blocked, in microseconds. KEYS[1] its
-- blocks, as login.lua has them.
local state = call('GET', KEYS[1])
if not state then return 0 end
local till, length = string.match(state, '^(%d+):(%d+):%d+$')
till, length = tonumber(till), tonumber(length)
if length > 2 ^ 53 then error('no block of a login') end -- longer than any
return math.max(math.min(till - clock, length), 0)
