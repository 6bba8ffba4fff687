-- Replace the data, if no one did since. ARGV: member, version, data. Returns
-- {2, version} when it was done, {1, …} as load when the version is another,
-- {0, why} when there is no session any more: it is not made again.
local s, why = fetch(ARGV[1])
if not s then return {0, why} end
if s.frozen then return {0, 'frozen'} end
if s.version ~= ARGV[2] then return tell(s, touch(s)) end
local version = int(tonumber(s.version) + 1)
call('HSET', KEYS[1], 'v', version, 'd', ARGV[3])
touch(s)
return {2, version}
