-- Reads what two generations hold of one session, as of one moment.
--
-- KEYS  1, 2: the checkpoints, 3, 4: the documents, then an index in the two
--       generations, if there is one to compare
-- ARGV  1: the member of that index
-- Returns the checkpoints, the documents, and whether each index has the member.

local reply = {}
for i = 1, 4 do reply[i] = redis.call('GET', KEYS[i]) or '' end
for i = 5, #KEYS do reply[i] = redis.call('ZSCORE', KEYS[i], ARGV[1]) and 1 or 0 end
return reply
