-- read_records: records as they are stored, with the lists of what they occupy: named ones, or the next in the order by name.
--
-- KEYS[1]  zset    names of all records, all scores 0
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed map:
--                    keys     the records to read; missing = go on in the order
--                    after    the last record that was read, '' at first
--                    upto     the last one to read, '' for all
--                    limit    how many to read
--
-- returns  for each record {key, type of what lies there, hash as a flat list, packed list of entries or false}; the hash
--          is empty where the type is not 'hash'
-- errors   WRONGTYPE: KEYS[1] holds something else
-- cost     O(log n + records * fields)
local request = cmsgpack.unpack(ARGV[1])
local keys = request.keys
if not keys then
  local from = request.after == '' and '-' or '(' .. request.after
  local to = request.upto == '' and '+' or '[' .. request.upto
  keys = redis.call('ZRANGEBYLEX', KEYS[1], from, to, 'LIMIT', 0, request.limit)
end
local out = {}
for i = 1, #keys do
  local rk = keys[i]
  local held = redis.call('TYPE', rk).ok
  local read, blob, entries = pcall(stored_occupancy, rk)
  out[i] = {rk, held, held == 'hash' and redis.call('HGETALL', rk) or {},
    read and blob and cmsgpack.pack(entries) or false}
end
return out
