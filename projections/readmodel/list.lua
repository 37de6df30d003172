-- Finds the next members of a list in one partition, as of one checkpoint. It walks the
-- indexes of one filter and keeps the members that pass every other filter. A member
-- passes a filter if any of the filter's indexes holds it.
--
-- KEYS  1: checkpoint, then the indexes, filter by filter
-- ARGV  1: ZRANGEBYLEX or ZREVRANGEBYLEX
--       2, 3: the bounds of the walk, in the command's order
--       4: how many members to skip by rank; only with a single index
--       5: which filter to walk, from 1; 0 for the one with the fewest members
--       6, 7: lower and upper bound of the members to count for that choice
--       8: about how many index entries to examine
--       9: how many members to find at most; 0 to count only
--       10: read the documents too, if at most this many members are found
--       11: prefix of document keys
--       12...: how many indexes each filter has
-- Returns the checkpoint; the filter that was walked; the number of members of its indexes,
-- if it was chosen here; the number of entries examined; the last member examined, or
-- false if there are no more after it; the members found; and either their documents,
-- false for a missing one, or an empty list.

local command, first, last = ARGV[1], ARGV[2], ARGV[3]
local slice, find = tonumber(ARGV[8]), tonumber(ARGV[9])
local examined = 0

local filters, key = {}, 2
for f = 12, #ARGV do
  local indexes = {}
  for i = 1, tonumber(ARGV[f]) do
    indexes[i] = KEYS[key]
    key = key + 1
  end
  filters[f - 11] = indexes
end

local source, size = tonumber(ARGV[5]), 0
if source == 0 then
  for f, indexes in ipairs(filters) do
    local sum = 0
    for _, index in ipairs(indexes) do
      if ARGV[6] == '-' and ARGV[7] == '+' then
        sum = sum + redis.call('ZCARD', index)
      else
        sum = sum + redis.call('ZLEXCOUNT', index, ARGV[6], ARGV[7])
      end
    end
    if source == 0 or sum < size then source, size = f, sum end
  end
end

local function reply(passed, found)
  local documents = {}
  if #found > 0 and #found <= tonumber(ARGV[10]) then
    for i, member in ipairs(found) do
      documents[i] = ARGV[11] .. string.format(
        '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x', string.byte(member, 9, 24))
    end
    documents = redis.call('MGET', unpack(documents))
  end
  return {redis.call('GET', KEYS[1]) or '', source, size, examined, passed, found, documents}
end

if find == 0 then return reply(false, {}) end

if tonumber(ARGV[4]) > 0 then
  -- A rank is found in logarithmic time.
  local index, up, outside = filters[source][1], command == 'ZRANGEBYLEX', 0
  local complement = (string.sub(first, 1, 1) == '[' and '(' or '[') .. string.sub(first, 2)
  if up and first ~= '-' then outside = redis.call('ZLEXCOUNT', index, '-', complement) end
  if not up and first ~= '+' then outside = redis.call('ZLEXCOUNT', index, complement, '+') end
  local rank = outside + ARGV[4]
  local member = redis.call(up and 'ZRANGE' or 'ZREVRANGE', index, rank, rank)[1]
  if not member then return reply(false, {}) end
  first = '[' .. member
end

-- Lua compares strings by the server's locale, but a list is in byte order. So members
-- are compared by createdAt as a number, and then byte by byte.
local function createdAt(member)
  local a, b, c, d, e, f, g = string.byte(member, 2, 8) -- the first is 0
  return (((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g
end

local function precedes(part, other)
  local a, b = part.time, other.time
  for i = 9, 24 do
    if a ~= b then break end
    a = string.byte(part.head, i)
    b = string.byte(other.head, i)
  end
  if command == 'ZRANGEBYLEX' then return a < b end
  return a > b
end

-- Advances a part of an index to its next member. Returns whether there is one.
local function advance(part, batch)
  part.at = part.at + 1
  if part.at > #part.members and #part.members == part.batch then
    local from = part.batch == 0 and first or '(' .. part.head
    part.batch = math.max(batch, 2 * part.batch)
    part.members = redis.call(command, part.index, from, last, 'LIMIT', 0, part.batch)
    part.at = 1
    examined = examined + #part.members
  end
  local head = part.members[part.at]
  if not head then return false end
  part.head = head
  part.time = createdAt(head)
  return true
end

-- Restores the heap below an element. Its top holds the next member of all.
local function sift(heap, i)
  while true do
    local nearest = i
    for child = 2 * i, 2 * i + 1 do
      if heap[child] and precedes(heap[child], heap[nearest]) then nearest = child end
    end
    if nearest == i then return end
    local part = heap[i]
    heap[i] = heap[nearest]
    heap[nearest] = part
    i = nearest
  end
end

-- Returns the next members of the union of some indexes, and whether there may be more.
local function walk(indexes, size)
  if #indexes == 1 then
    local members = redis.call(command, indexes[1], first, last, 'LIMIT', 0, size)
    examined = examined + #members
    return members, #members == size
  end
  local heap, batch = {}, math.max(2, math.ceil(2 * size / #indexes))
  for _, index in ipairs(indexes) do
    local part = {index = index, members = {}, at = 0, batch = 0}
    if advance(part, batch) then heap[#heap + 1] = part end
  end
  for i = math.floor(#heap / 2), 1, -1 do sift(heap, i) end
  local members, n = {}, 0
  while heap[1] and n < size do
    local top = heap[1]
    if top.head ~= members[n] then
      n = n + 1
      members[n] = top.head
    end
    if not advance(top, batch) then
      heap[1] = heap[#heap]
      heap[#heap] = nil
    end
    sift(heap, 1)
  end
  return members, heap[1] ~= nil
end

-- Returns those members that any of some indexes holds.
local function heldByAny(members, indexes)
  local hit, rest, places = {}, members -- places of the rest among the members
  for _, index in ipairs(indexes) do
    if #rest == 0 then break end
    examined = examined + #rest
    local missing, at = {}, {}
    for i, score in ipairs(redis.call('ZMSCORE', index, unpack(rest))) do
      local place = places and places[i] or i
      hit[place] = score
      if not score then
        missing[#missing + 1] = rest[i]
        at[#at + 1] = place
      end
    end
    rest = missing
    places = at
  end
  local kept = {}
  for i, member in ipairs(members) do
    if hit[i] then kept[#kept + 1] = member end
  end
  return kept
end

local indexes = filters[source]
local cost = math.min(2, #indexes) + (#KEYS - 1 - #indexes) -- entries examined per member
local members, more = walk(indexes, math.max(8, math.floor(slice / cost)))
local found = members
for f = 1, #filters do
  if f ~= source and #found > 0 then found = heldByAny(found, filters[f]) end
end
local passed = more and members[#members]
if #found > find then
  passed = found[find]
  for i = #found, find + 1, -1 do found[i] = nil end
end
return reply(passed, found)
