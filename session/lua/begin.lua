-- What the scripts begin with, after clock.lua, that read a session.

local function int(n) return string.format('%.0f', n) end

-- The session, or nil and why: missing, rotated, revoked, ended; true as well
-- where it was rotated, but what it became may have ended, too.
local function fetch(member)
  local f = call('HMGET', KEYS[1], 'v', 'a', 'i', 'u', 'e', 'd', 'x', 'r')
  if not f[1] then return nil, f[7] and 'rotated' or 'missing' end
  local s = {version = f[1], ends = tonumber(f[2]), idle = tonumber(f[3]), user = f[4], epoch = f[5], data = f[6],
    frozen = f[7], remember = f[8], last = f[2]}
  -- What was rotated cannot be read any more when what it became was rotated
  -- again, has ended or has ended the others. It stays a note of that: a session
  -- that is begun under it would take the place of a right one.
  if s.user ~= '' then
    if not KEYS[2] then return nil, 'whole' end -- it was asked for as one without user
    local epoch = call('GET', KEYS[2])
    local listed = call('ZSCORE', KEYS[3], s.frozen or member)
    if epoch ~= s.epoch or not listed then
      if s.frozen and clock < s.ends then return nil, 'rotated', true end
      call('DEL', KEYS[1])
      return nil, 'revoked'
    end
  end
  if clock >= s.ends then
    call('DEL', KEYS[1])
    if s.user ~= '' then call('ZREM', KEYS[3], member) end
    return nil, 'ended'
  end
  return s
end

-- What is left of it, in milliseconds, when it is used now.
local function life(s) return math.max(math.min(s.idle, math.ceil((s.ends - clock) / 1000)), 1) end

-- Uses it: not more often than once in a tenth of the idle time. More than it
-- can have is left after the clock was put back.
local function touch(s)
  if s.frozen then return call('PTTL', KEYS[1]) end
  local left, full = call('PTTL', KEYS[1]), life(s)
  if left < 0 or math.abs(full - left) >= s.idle / 10 then
    call('PEXPIRE', KEYS[1], int(full))
    left = full
  end
  return left
end

local function tell(s, left)
  return {1, s.version, s.user, s.data, s.frozen and 1 or 0, s.ends - clock, left, s.remember or '', s.idle, s.last}
end

-- Leaves a note for a while that there is another identifier now.
local function note(member, milliseconds)
  if tonumber(milliseconds) > 0 then
    call('HSET', KEYS[1], 'x', member)
    call('PEXPIRE', KEYS[1], milliseconds)
  end
end
