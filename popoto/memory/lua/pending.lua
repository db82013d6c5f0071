-- pending: the proposals of a partition.
--
-- KEYS[1]  zset    record -> when it was surfaced (kind_proposal)
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  int     how many places to pass over
-- ARGV[2]  int     how many places to look at
--
-- returns  {places looked at, {record, time as text, ...}}, the oldest first; records that have expired are left out
-- errors   none of its own
-- cost     O(log n + places)
local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local flat, rows = redis.call('ZRANGE', KEYS[1], from, from + count - 1, 'WITHSCORES'), {}
for i = 1, #flat, 2 do
  if redis.call('EXISTS', flat[i]) == 1 then
    rows[#rows + 1] = flat[i]
    rows[#rows + 1] = flat[i + 1]
  end
end
return {#flat / 2, rows}
