-- Removes one slice of a partition's keys, or does nothing.
--
-- KEYS  1: checkpoint, which stays
-- ARGV  1: what must stand in the checkpoint's place
--       2: what is put there, the mark of the next slice
--       3: pattern of the partition's keys
--       4: cursor of the scan
--       5: how many keys to look at, about
-- Returns what it found in the checkpoint's place, the next cursor, and how many
-- keys it removed. Where the first is not ARGV[1], nothing was removed.

local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return {found, '0', 0} end

redis.call('SET', KEYS[1], ARGV[2])
local reply = redis.call('SCAN', ARGV[4], 'MATCH', ARGV[3], 'COUNT', ARGV[5])
local removed = 0
for _, key in ipairs(reply[2]) do
  if key ~= KEYS[1] then
    removed = removed + redis.call('UNLINK', key)
  end
end
return {found, reply[1], removed}
