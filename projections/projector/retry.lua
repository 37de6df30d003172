-- Restores a parked session, unless something has changed since it was read.
--
-- KEYS  1: checkpoint, 2: the parked sessions, 3: the session's document, then the
--       indexes that it belongs in
-- ARGV  1: the generation, 2: the session's id, 3: its note
--       4: the document, 5: the index member
-- Returns 1 if it was restored, else 0.

local answers = redis.call('GET', KEYS[1]) or ''
if not string.find(answers, ' ' .. ARGV[1] .. ' ', 1, true) then return 0 end
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[3], ARGV[4])
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], 0, ARGV[5]) end
redis.call('HDEL', KEYS[2], ARGV[2])
-- A projector that watches it saw the session parked, and reads it again.
redis.call('SET', KEYS[1], answers)
return 1
