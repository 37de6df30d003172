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
local function sameIndex(name)
  local members = redis.call('ZRANGE', ARGV[4] .. name, 0, limit)
  return #members <= limit and table.concat(members) == table.concat(redis.call('ZRANGE', ARGV[5] .. name, 0, limit))
end

-- Calls a command with the keys of a generation that have these names.
local function call(command, begin, names)
  local keys = {}
  for i, name in ipairs(names) do keys[i] = begin .. name end
  return redis.call(command, unpack(keys))
end

local reply = redis.call('SCAN', ARGV[2], 'MATCH', ARGV[1], 'COUNT', ARGV[3])
local differ, documents, others = {}, {}, {} -- others are keys of the second generation
for _, key in ipairs(reply[2]) do
  local first = begins(key, ARGV[4])
  local name = first and string.sub(key, #ARGV[4] + 1) or begins(key, ARGV[5]) and string.sub(key, #ARGV[5] + 1) or ''
  local document, index = begins(name, 'doc:'), begins(name, 'by:')
  if first and document then
    documents[#documents + 1] = name
  elseif first and index then
    if not sameIndex(name) then differ[#differ + 1] = name end
  elseif document or index then
    others[#others + 1] = name
  end
end
-- Each command costs more than what it looks at: one for all.
if #documents > 0 then
  local one, other = call('MGET', ARGV[4], documents), call('MGET', ARGV[5], documents)
  for i, name in ipairs(documents) do
    if one[i] ~= other[i] then differ[#differ + 1] = name end
  end
end
if #others > 0 and call('EXISTS', ARGV[4], others) < #others then
  for _, name in ipairs(others) do
    if redis.call('EXISTS', ARGV[4] .. name) == 0 then differ[#differ + 1] = name end
  end
end
return {reply[1], #reply[2], differ}
