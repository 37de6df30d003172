-- Takes or renews the lock of a rebuild, by the clock of Redis, unless another rebuild has it.
--
-- KEYS  1: the rebuild at work, scored by its last renewal
-- ARGV  1: the rebuild, 2: how long a renewal lasts, in milliseconds
-- Returns 1, or 0 if another rebuild has the lock.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
if redis.call('ZCARD', KEYS[1]) > 0 and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
return 1
