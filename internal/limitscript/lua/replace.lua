-- Delete what none of the scripts can read: another type, or a text of another
-- form. KEYS: any. ARGV: what each is to hold. Returns for each the type of what
-- was deleted, '' where nothing was.
local call = redis.call
local types = {log = 'list', set = 'zset', window = 'string', gcra = 'string', block = 'string', blocks = 'string'}
local forms = {window = '^%d+;%d+;', gcra = '^%d+:%d+:%d+$', blocks = '^%d+:%d+:%d+$'}
local longest = 2 ^ 53 -- block that is one: all beyond is infinite, or as good as that

local function readable(key, what)
  if what == 'set' then return true end
  if what == 'log' then
    local at = 0
    while true do
      local page = call('LRANGE', key, at, at + 999)
      for i = 1, #page do
        if not tonumber(page[i]) then return false end
      end
      if #page < 1000 then return true end
      at = at + 1000
    end
  end
  local value = call('GET', key)
  if what == 'block' then
    local till, length = string.match(value, '^([^:]*):(.*)$')
    till, length = tonumber(till or ''), tonumber(length or '')
    return till and length and length <= longest
  end
  if not string.find(value, forms[what]) then return false end
  return what ~= 'blocks' or tonumber(string.match(value, ':(%d+):')) <= longest
end

local out = {}
for i = 1, #KEYS do
  local kind, what = call('TYPE', KEYS[i]).ok, ARGV[i]
  out[i] = ''
  if kind ~= 'none' and (kind ~= types[what] or not readable(KEYS[i], what)) then
    call('DEL', KEYS[i])
    out[i] = kind
  end
end
return out
