-- Notes that a layout of the read model is in use, by the clock of Redis.
--
-- KEYS  1: the layouts, by when they were noted last
-- ARGV  1: the layout, 2: how long a note counts, in milliseconds
-- Returns how many other layouts are in use.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('ZCARD', KEYS[1]) - 1
