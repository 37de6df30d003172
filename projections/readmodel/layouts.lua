-- Registers a layout of the read model as in use, by the clock of Redis.
--
-- KEYS  1: the layouts, scored by their last registration
-- ARGV  1: the layout, 2: how long a registration lasts, in milliseconds
-- Returns the number of other layouts in use.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('ZCARD', KEYS[1]) - 1
