-- highest_errors: the records whose predictions were farthest off.
--
-- KEYS[1]  zset    record -> error, of one partition
-- KEYS[2]  hash    record -> prediction (kind_prediction)
-- KEYS[3]  -       sentinel of the same hash tag, never written
-- ARGV[1]  int     how many places from the top to pass over
-- ARGV[2]  int     how many places to look at
-- ARGV[3]  0 | 1   1 = give the predictions too
--
-- returns  {places looked at, {record, error as text, prediction or false, ...}}, largest error first; records that have
--          expired are left out
-- errors   none of its own
-- cost     O(log n + places)
local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local flat = redis.call('ZREVRANGE', KEYS[1], from, from + count - 1, 'WITHSCORES')
local rows = {}
for i = 1, #flat, 2 do
  if redis.call('EXISTS', flat[i]) == 1 then
    rows[#rows + 1] = flat[i]
    rows[#rows + 1] = flat[i + 1]
    rows[#rows + 1] = ARGV[3] == '1' and redis.call('HGET', KEYS[2], flat[i]) or false
  end
end
return {#flat / 2, rows}
