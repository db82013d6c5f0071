-- bm25_idf: what the inverse document frequencies of some terms come from, and the mean length.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  the key of the index (kind_bm25)
-- ARGV[2]  bytes   packed list of terms
--
-- returns  {number of documents, their words, documents that hold the first term, the second...}
-- errors   none of its own
-- cost     O(terms)
local terms = cmsgpack.unpack(ARGV[2])
local n = redis.call('ZCARD', ARGV[1] .. ':dl')
local words = tonumber(redis.call('GET', ARGV[1] .. ':total') or nil)
local mean = not words and tonumber(redis.call('GET', ARGV[1] .. ':avgdl') or nil) -- of an older layout
local out = {n, words or math.floor((mean or 0) * n + 0.5)}
for from = 1, #terms, 4000 do
  local df = redis.call('ZMSCORE', ARGV[1] .. ':df', unpack(terms, from, math.min(from + 3999, #terms)))
  for i = 1, #df do out[#out + 1] = tonumber(df[i] or 0) end
end
return out
