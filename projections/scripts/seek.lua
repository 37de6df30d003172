-- Finds the member at an offset behind a bound, by rank: as fast for the
-- millionth as for the first.
--
-- KEYS  1: checkpoint, 2: index
-- ARGV  1: ZRANGE, or ZREVRANGE to go down
--       2, 3: the members that lie outside, between the end of the index and the
--             bound, as bounds; '' for none
--       4: the offset
-- Returns the checkpoint, and the member or false.

local outside = 0
if ARGV[2] ~= '' then outside = redis.call('ZLEXCOUNT', KEYS[2], ARGV[2], ARGV[3]) end
local rank = outside + tonumber(ARGV[4])
return {redis.call('GET', KEYS[1]) or '', redis.call(ARGV[1], KEYS[2], rank, rank)[1] or false}
