-- End one session, and the session that it was rotated to. ARGV: member; its user,
-- '' for any user; the version that it must have, '' for any, '*' for any and return
-- the record; for how many milliseconds a note stays. Returns {2, the member that
-- it was rotated to or ''} when it was there; {0, why} when it was not, or when it
-- was rotated although its version counts; {1, ...} as load when the version is
-- another, or for '*'.
if ARGV[2] ~= '' and call('HGET', KEYS[1], 'u') ~= ARGV[2] then return {0, 'missing'} end
local s, why, over = fetch(ARGV[1])
if not s then return {0, over and 'revoked' or why} end -- a login keeps none of its data
if ARGV[3] ~= '' then
  if s.frozen then return {0, 'frozen'} end
  if ARGV[3] ~= '*' and s.version ~= ARGV[3] then return tell(s, touch(s)) end
end
if s.user ~= '' then call('ZREM', KEYS[3], s.frozen or ARGV[1]) end
call('DEL', KEYS[1])
note('', ARGV[4])
if ARGV[3] == '*' then return tell(s, 0) end
return {2, s.frozen or ''}
