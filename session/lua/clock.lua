-- What every script of this package begins with. A session is a hash:
--   v  version, counts its changes     c  created    a  ends at the latest
--   i  idle time, milliseconds         u  user       e  the user's epoch at login
--   d  data                            m  device     r  '1': its cookie outlives the browser
--   x  after a rotation: the new member. Where there is nothing else the session
--      has another identifier, and nothing can be read under this one.
-- Times are whole microseconds of the server's clock. KEYS: session, epoch of
-- its user, index of its user; the last two mean nothing to one without user.
local call = redis.call
local t = redis.call('TIME')
local clock = t[1] * 1000000 + t[2]
