-- Read and touch. ARGV: member in the index. Returns {1, version, user, data,
-- frozen, left until the end, left while idle, remember, idle time, end}, or
-- {0, why}.
local s, why = fetch(ARGV[1])
if not s then return {0, why} end
return tell(s, touch(s))
