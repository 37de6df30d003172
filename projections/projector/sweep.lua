-- Removes some keys of a generation that nobody reads any more.
--
-- KEYS  1: checkpoint, 2: checkpoint of what is built beside, 3: the generations
-- ARGV  1: the generation
--       2: pattern of its keys
--       3: cursor of the scan
--       4: how many keys to look at, about
-- Returns the next cursor and how many keys it removed; nothing is removed, and
-- the cursor is '', when the generation is one of those that the checkpoints name.
-- When the scan is through, the generation is no longer in the list of them.

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
