-- Lists some keys of a generation.
--
-- KEYS  1: any key of the partition, for Redis Cluster
-- ARGV  1: pattern of the generation's keys
--       2: cursor of the scan
--       3: how many keys to look at, about
--       4: what the generation's keys begin with
--       5: an index of more members than this is only named
-- Returns the next cursor, the ids of sessions that have a document, names of indexes,
-- and for each of these its members, one behind the other, 'long', 'disordered' where a
-- score is not 0, or 'wrong' for a key of another kind.

local reply = redis.call('SCAN', ARGV[2], 'MATCH', ARGV[1], 'COUNT', ARGV[3])
local function score(key, rank) return tonumber(redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')[2]) end

local begin, limit, documents, indexes, members = #ARGV[4], tonumber(ARGV[5]), {}, {}, {}
for _, key in ipairs(reply[2]) do
  local kind = string.sub(key, begin + 1, begin + 3)
  if kind == 'doc' then
    documents[#documents + 1] = string.sub(key, begin + 5)
  elseif kind == 'by:' then
    local found = redis.pcall('ZRANGE', key, 0, limit)
    indexes[#indexes + 1] = string.sub(key, begin + 4)
    local what
    if found.err then
      what = 'wrong'
    elseif score(key, 0) ~= 0 or score(key, -1) ~= 0 then -- the least and the greatest
      what = 'disordered'
    elseif #found > limit then
      what = 'long'
    else
      what = table.concat(found)
    end
    members[#members + 1] = what
  end
end
return {reply[1], documents, indexes, members}
