-- migrate_confidence: move what is learnt of records out of the companion hash of the whole model into those of partitions.
--
-- KEYS[1..]  hash    the records; behind them a sentinel of the same hash tag, never written
-- ARGV[1]    bytes   packed map:
--                      slot, base   of the companion data (kind_confidence)
--                      fields       that the partition is made of
--                      records      for each record {the values of these fields as they were read, false for none; the parts}
-- ARGV[2]    string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  for each record 1, or why it was left where it is
-- errors   none of its own
-- cost     O(records * log n)
local before = answered(ARGV[2])
if before then return before end
local q = cmsgpack.unpack(ARGV[1])

local function is_as_read(rk, values)
  local stored = redis.call('HMGET', rk, unpack(q.fields))
  for i = 1, #q.fields do
    if stored[i] ~= values[i] then return false end
  end
  return true
end

local function migrated(rk, values, parts)
  if redis.call('TYPE', rk).ok ~= 'hash' then return 'the record is not stored' end
  if not is_as_read(rk, values) then return 'the record changed meanwhile; run it again' end
  local e = {q.slot, 'c', q.base, parts, false}
  local refusal = kinds.c.probe(e, entry_key(e))
  if refusal then return refusal end
  local _, entries = stored_occupancy(rk)
  local at = #entries + 1
  for i = 1, #entries do
    if entries[i][1] == q.slot then at = i end
  end
  local whole = {q.slot, 'c', q.base, {}, false}
  local old = entries[at]
  if old and entry_key(old) == entry_key(e) then -- a save has made it anew: what lies here counts if it knows more
    local left = redis.call('HGET', q.base, rk)
    local known, newer = confidence_data(left), confidence_data(redis.call('HGET', entry_key(e), rk) or '')
    kinds.c.drop(whole, q.base, rk)
    if known and (not newer or newer.evidence_count < known.evidence_count) then
      redis.call('HSET', entry_key(e), rk, left)
      kinds.c.put(e, entry_key(e), rk, nil, e, entry_key(e), rk)
    end
    return 1
  end
  replace_entry(e, entry_key(e), rk, nil, old or whole, rk)
  entries[at] = e
  occ_set(rk, entries)
  return 1
end

local out = {}
for i = 1, #KEYS - 1 do out[i] = migrated(KEYS[i], q.records[i][1], q.records[i][2]) end
return remember(ARGV[2], out)
