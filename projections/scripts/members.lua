-- Reads one slice of each of several indexes, as of one checkpoint.
--
-- KEYS  1: checkpoint, then the indexes
-- ARGV  1: ZRANGEBYLEX or ZREVRANGEBYLEX
--       2, 3: the bounds, in the order that the command wants
--       4: how many members of each index at most
-- Returns the checkpoint, then the members of each index.

local reply = {redis.call('GET', KEYS[1]) or ''}
for i = 2, #KEYS do
  reply[i] = redis.call(ARGV[1], KEYS[i], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
end
return reply
