-- Reads what two generations hold of one session, as of one moment.
--
-- KEYS  1, 2: the checkpoints, 3, 4: the documents, 5, 6: the parked sessions, then an
--       index in the two generations, if there is one to compare
-- ARGV  1: the session's id, 2: the member of that index
-- Returns the checkpoints, the documents, what was parked, and whether each index has
-- the member.

local reply = {}
for i = 1, 4 do reply[i] = redis.call('GET', KEYS[i]) or '' end
for i = 5, 6 do reply[i] = redis.call('HGET', KEYS[i], ARGV[1]) or '' end
for i = 7, #KEYS do reply[i] = redis.call('ZSCORE', KEYS[i], ARGV[2]) and 1 or 0 end
return reply
