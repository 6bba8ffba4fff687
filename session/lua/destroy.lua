-- End one session, and what it became by a rotation. ARGV: member; its user, ''
-- for whoever it is; the version that it must have, '' for any, '*' for any that
-- is then told; for how many milliseconds a note stays. Returns {2, what it
-- became or ''} when it was there, {0, why} when not or when it was rotated although its version counts,
-- {1, …} as load when the version is another, or to be told.
if ARGV[2] ~= '' and call('HGET', KEYS[1], 'u') ~= ARGV[2] then return {0, 'missing'} end
local s, why, over = fetch(ARGV[1])
if not s then return {0, over and 'revoked' or why} end -- a login takes nothing along
if ARGV[3] ~= '' then
  if s.frozen then return {0, 'frozen'} end
  if ARGV[3] ~= '*' and s.version ~= ARGV[3] then return tell(s, touch(s)) end
end
if s.user ~= '' then call('ZREM', KEYS[3], s.frozen or ARGV[1]) end
call('DEL', KEYS[1])
note('', ARGV[4])
if ARGV[3] == '*' then return tell(s, 0) end
return {2, s.frozen or ''}
