-- Every script of this package begins with these lines. Times are whole microseconds
-- of the server's clock; a Lua number holds them exactly until the year 2255.
-- A command takes whole numbers as they are and gets them in full; a text of
-- them is made by '%.0f', since Lua itself may print them with an exponent. A
-- key that must not go before so many microseconds have passed lives for
-- math.ceil(of them / 1000) + 1 milliseconds.
--
-- An algorithm is two pieces of code. decide has key, cost, limit, window, and
-- own, wait and how, texts of its own. It changes nothing that a later question
-- could see, and sets, all 0 before,
--   retry   0: admitted; otherwise how long until cost would be
--   used    how much of the limit is taken now
--   reset   how long until nothing is taken
--   extra   one more number, for the caller
-- and what it leaves to take: a, b, c and d. take takes the cost, and sets used,
-- reset and extra to what they are then; it has own and nonce too.
--
-- A single limit runs the pieces in place: Redis creates every function again
-- at each call, which took an eighth of the time.
local call = redis.call
local t = redis.call('TIME')
local clock = t[1] * 1000000 + t[2]
