-- count: how many records there are, or how many one index entry names, without walking what is counted.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    records with a TTL -> when they expire, ms
-- KEYS[3]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  'all', 'set' or 'range'
-- ARGV[2]  string  'set': the first of its keys, the others follow; 'range': the key
-- ARGV[3]  string  'range': lowest score
-- ARGV[4]  string  'range': highest score
--
-- returns  the number, without expired records; false when so many have expired that select must look, in slices
-- errors   none of its own
-- cost     O(log n) and, for records that expired and left entries behind, O(those)
local MOST = 10000 -- expired records looked at here: about 10 ms
local what = ARGV[1]
local expired = {}
if redis.call('ZCARD', KEYS[2]) > 0 then
  local t = redis.call('TIME')
  local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', t[1] * 1000 + math.floor(t[2] / 1000), 'LIMIT', 0, MOST + 1)
  if #due > MOST then return false end
  for i = 1, #due do
    if redis.call('EXISTS', due[i]) == 0 then expired[#expired + 1] = due[i] end
  end
end

local function counted(key, size)
  for i = 1, #expired do size = size - redis.call('SISMEMBER', key, expired[i]) end
  return size
end

if what == 'all' then return counted(KEYS[1], redis.call('SCARD', KEYS[1])) end
if what == 'range' then
  if #expired > 0 then return false end
  return redis.call('ZCOUNT', ARGV[2], ARGV[3], ARGV[4])
end
local n = 0
for i = 2, #ARGV do n = n + counted(ARGV[i], redis.call('SCARD', ARGV[i])) end
return n
