-- Compares some keys of two generations: documents, and indexes that are not long.
--
-- KEYS  1: any key of the partition, for Redis Cluster
-- ARGV  1: pattern of the keys of both generations
--       2: cursor of the scan
--       3: how many keys to look at, about
--       4, 5: what the keys of the two generations begin with
--       6: an index of more members than this is not compared here
-- Returns the next cursor, how many keys were seen, and the names, without what they
-- begin with, of those that are not the same, that one of the two lacks, or that are
-- long indexes.

local function begins(text, with) return string.sub(text, 1, #with) == with end

local limit = tonumber(ARGV[6])
local function same(name)
  local one, other = ARGV[4] .. name, ARGV[5] .. name
  if begins(name, 'doc:') then return redis.call('GET', one) == redis.call('GET', other) end
  if not begins(name, 'by:') then return true end
  local members = redis.call('ZRANGE', one, 0, limit)
  return #members <= limit and table.concat(members) == table.concat(redis.call('ZRANGE', other, 0, limit))
end

local reply = redis.call('SCAN', ARGV[2], 'MATCH', ARGV[1], 'COUNT', ARGV[3])
local differ = {}
for _, key in ipairs(reply[2]) do
  if begins(key, ARGV[4]) then
    local name = string.sub(key, #ARGV[4] + 1)
    if not same(name) then differ[#differ + 1] = name end
  elseif begins(key, ARGV[5]) then
    local name = string.sub(key, #ARGV[5] + 1)
    local compared = begins(name, 'doc:') or begins(name, 'by:')
    if compared and redis.call('EXISTS', ARGV[4] .. name) == 0 then differ[#differ + 1] = name end
  end
end
return {reply[1], #reply[2], differ}
