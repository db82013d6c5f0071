-- count: how many records there are, or how many one index entry names, without walking anything.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    records with a TTL -> when they expire, ms
-- KEYS[3]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  'all', 'set' (ARGV[2]... are its keys) or 'range' (ARGV[2] key, ARGV[3] min, ARGV[4] max)
--
-- returns  the number; false when expired records may be among those counted, so that select must look
-- errors   none of its own
-- cost     O(log n)
local what = ARGV[1]
local due = 0
if redis.call('ZCARD', KEYS[2]) > 0 then
  local t = redis.call('TIME')
  due = redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. (t[1] * 1000 + math.floor(t[2] / 1000)))
end
if what == 'all' then return redis.call('SCARD', KEYS[1]) - due end
if due > 0 then return false end
if what == 'range' then return redis.call('ZCOUNT', ARGV[2], ARGV[3], ARGV[4]) end
local n = 0
for i = 2, #ARGV do n = n + redis.call('SCARD', ARGV[i]) end
return n
