-- Saves a query of an account, and removes the account's oldest ones.
--
-- KEYS  1: the query, 2: the account's queries, scored by when they were saved
-- ARGV  1: text, 2: digest, 3: now and 4: life in milliseconds, 5: how many to
--       keep, 6: prefix of the keys of the account's queries

redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if over > 0 then
  for _, digest in ipairs(redis.call('ZRANGE', KEYS[2], 0, over - 1)) do
    redis.call('DEL', ARGV[6] .. digest)
    redis.call('ZREM', KEYS[2], digest)
  end
end
