-- Counts the members of indexes between two bounds, as of one checkpoint.
--
-- KEYS  1: checkpoint, then the indexes
-- ARGV  1, 2: lower and upper bound
-- Returns the checkpoint, then the size of each.

local reply = {redis.call('GET', KEYS[1]) or ''}
for i = 2, #KEYS do
  if ARGV[1] == '-' and ARGV[2] == '+' then
    reply[i] = redis.call('ZCARD', KEYS[i])
  else
    reply[i] = redis.call('ZLEXCOUNT', KEYS[i], ARGV[1], ARGV[2])
  end
end
return reply
