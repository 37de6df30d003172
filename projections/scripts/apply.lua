-- Writes one batch and moves the checkpoint, or does nothing.
--
-- KEYS  1: checkpoint
--       then the documents, then the indexes that members leave, then those that
--       members enter
-- ARGV  1: the checkpoint that the batch builds on ('' for none)
--       2: the checkpoint after the batch
--       3: channel that is told about the new checkpoint
--       4: how many documents, 5: how many indexes that members leave
--       then one value per document, and for each index a number and so many
--       arguments: the members that leave, or score and member of those that enter
-- Returns the checkpoint that it found. Where that is not ARGV[1], nothing was
-- written.

local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end

local documents, leaving = tonumber(ARGV[4]), tonumber(ARGV[5])
local at = 6
for i = 2, 1 + documents do
  redis.call('SET', KEYS[i], ARGV[at])
  at = at + 1
end
for i = 2 + documents, #KEYS do
  local n = tonumber(ARGV[at])
  local command = 'ZADD'
  if i < 2 + documents + leaving then command = 'ZREM' end
  redis.call(command, KEYS[i], unpack(ARGV, at + 1, at + n))
  at = at + 1 + n
end

redis.call('SET', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[2])
return found
