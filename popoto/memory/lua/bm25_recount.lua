-- bm25_recount: count the documents and their mean length anew, from the lengths.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  P, the key of the index (kind_bm25); P:dl is read, P:n, P:total and P:avgdl are written
--
-- returns  {documents, sum of their lengths}
-- errors   none of its own
-- cost     O(documents), in one call: 1,000,000 of them hold the server for about half a second
local P, STEP = ARGV[1], 3000
local n, total, at = redis.call('ZCARD', P .. ':dl'), 0, 0
while at < n do
  local flat = redis.call('ZRANGE', P .. ':dl', at, at + STEP - 1, 'WITHSCORES')
  for i = 2, #flat, 2 do total = total + flat[i] end
  at = at + STEP
end
if n == 0 then
  redis.call('DEL', P .. ':n', P .. ':total', P .. ':avgdl')
else
  redis.call('MSET', P .. ':n', n, P .. ':total', string.format('%.0f', total),
    P .. ':avgdl', string.format('%.17g', total / n))
end
return {n, total}
