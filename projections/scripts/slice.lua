-- Reads one slice of an index with its documents, as of one checkpoint.
--
-- KEYS  1: checkpoint, 2: index
-- ARGV  1: ZRANGEBYLEX or ZREVRANGEBYLEX
--       2, 3: the bounds, in the order that the command wants
--       4: how many members at most
--       5: what document keys begin with
--       6: after how many bytes of documents to stop
-- Returns the checkpoint, the members, and for each its document (false when
-- there is none). There are fewer documents than members when ARGV[6] was reached.

local members = redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local documents, bytes, limit = {}, 0, tonumber(ARGV[6])
for i, member in ipairs(members) do
  if bytes > limit then break end
  local id = string.format('%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x',
    string.byte(member, 9, 24))
  documents[i] = redis.call('GET', ARGV[5] .. id)
  if documents[i] then bytes = bytes + #documents[i] end
end
return {redis.call('GET', KEYS[1]) or '', members, documents}
