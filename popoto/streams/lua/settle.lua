-- settle: acknowledge entries that were handled.
--
-- KEYS[1]  stream  the stream
-- KEYS[2]  hash    entry id -> what its handler last failed with, of this group
-- KEYS[3]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  group
-- ARGV[2..]        ids of the entries
--
-- returns  how many of them were pending
-- errors   WRONGTYPE when a key is no stream or hash
-- cost     O(entries)
local stream, errors, group = KEYS[1], KEYS[2], ARGV[1]
local failed = redis.call('EXISTS', errors) == 1
local count = 0
for i = 2, #ARGV do
  count = count + redis.call('XACK', stream, group, ARGV[i])
  if failed then redis.call('HDEL', errors, ARGV[i]) end
end
return count
