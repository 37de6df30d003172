-- Removes some keys of an unused generation.
--
-- KEYS  1: checkpoint, 2: checkpoint of a generation that is built beside, 3: the generations
-- ARGV  1: the generation
--       2: pattern of its keys
--       3: cursor of the scan
--       4: about how many keys to examine
-- Returns the next cursor and how many keys it removed. If a checkpoint names the
-- generation, it removes nothing and returns '' as the cursor. At the end of the scan,
-- it removes the generation from the list of generations.

for i = 1, 2 do
  local text = redis.call('GET', KEYS[i])
  if text and string.find(text, ' ' .. ARGV[1] .. ' ', 1, true) then return {'', 0} end
end
local reply = redis.call('SCAN', ARGV[3], 'MATCH', ARGV[2], 'COUNT', ARGV[4])
local removed, keys = 0, reply[2]
for i = 1, #keys, 1000 do
  removed = removed + redis.call('UNLINK', unpack(keys, i, math.min(i + 999, #keys)))
end
if reply[1] == '0' then redis.call('SREM', KEYS[3], ARGV[1]) end
return {reply[1], removed}
