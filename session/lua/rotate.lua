-- Move a session to a new identifier in the same slot. KEYS[4] the new one.
-- ARGV: member, new member, grace in milliseconds during which the old one can
-- be read (one without user cannot), version ('' for any), the data for the new
-- one ('' for the same). Returns {2, left until the end}, {1, …} as load when the version is another, or
-- {0, why}.
local s, why = fetch(ARGV[1])
if not s then return {0, why} end
if s.frozen then return {0, 'frozen'} end
if ARGV[4] ~= '' and s.version ~= ARGV[4] then return tell(s, touch(s)) end
call('HSET', KEYS[4], unpack(call('HGETALL', KEYS[1])))
if ARGV[5] ~= '' then call('HSET', KEYS[4], 'd', ARGV[5]) end
call('PEXPIRE', KEYS[4], int(life(s)))
if s.user == '' then
  call('DEL', KEYS[1])
  note(ARGV[2], ARGV[3])
  return {2, int(s.ends - clock)}
end
call('ZADD', KEYS[3], int(s.ends), ARGV[2])
call('ZREM', KEYS[3], ARGV[1])
if tonumber(ARGV[3]) > 0 then
  call('HSET', KEYS[1], 'x', ARGV[2])
  call('PEXPIRE', KEYS[1], int(math.min(tonumber(ARGV[3]), life(s))))
else
  call('DEL', KEYS[1])
end
return {2, int(s.ends - clock)}
