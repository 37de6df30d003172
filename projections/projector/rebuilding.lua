-- Notes that a rebuild is at work, by the clock of Redis, unless another one is.
--
-- KEYS  1: the rebuild at work, by when that was noted last
-- ARGV  1: the rebuild, 2: how long a note counts, in milliseconds
-- Returns 1, or 0 when another one is at work.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
if redis.call('ZCARD', KEYS[1]) > 0 and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
return 1
