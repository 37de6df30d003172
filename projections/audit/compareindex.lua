-- Compares one slice of an index with the same slice in another generation.
--
-- KEYS  1, 2: the index in the two generations
-- ARGV  1: lower bound of the slice
--       2: how many members at most
-- Returns the members of both, twice nothing when they are the same, and the member
-- up to which both were read, '' when that was to the end.

local limit = tonumber(ARGV[2])
local one = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, limit)
local other = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], '+', 'LIMIT', 0, limit)
local upto = ''
if #one == limit then upto = one[limit] end
if #other == limit and (upto == '' or other[limit] < upto) then upto = other[limit] end
if table.concat(one) == table.concat(other) then return {{}, {}, upto} end
return {one, other, upto}
