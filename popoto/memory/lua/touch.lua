-- touch: set the time at which a record was last touched, in its hash and in the order, without a save.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  field, which is also the name of its slot
-- ARGV[2]  float   the time, Unix seconds
-- ARGV[3]  bytes   the same as the hash stores it
-- ARGV[4]  bytes   packed event of a model with an event stream (lib_event), or ''
-- ARGV[5]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1
-- errors   GONE, UNINDEXED, WRONGTYPE: nothing is written
-- cost     O(log n)
local rk, slot = KEYS[1], ARGV[1]
local before = answered(ARGV[5])
if before then return before end

if redis.call('EXISTS', rk) == 0 then
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
local entry
local _, entries = stored_occupancy(rk)
for i = 1, #entries do
  if entries[i][1] == slot then entry = entries[i] end
end
if not entry then
  return redis.error_reply('UNINDEXED ' .. rk .. ' has no index entry for the field ' .. slot .. ' (it was stored ' ..
    'before the model had it); nothing was written. Call save(), or rebuild_indexes() for all records.')
end
local key = entry_key(entry)
local refusal = wrong_type(rk, 'hash') or wrong_type(key, 'zset')
local event, told = ARGV[4] ~= '' and cmsgpack.unpack(ARGV[4])
if event and not refusal then told, refusal = event_log.begin(event, rk, true) end
if refusal then return redis.error_reply(refusal) end

redis.call('ZADD', key, ARGV[2], rk)
redis.call('HSET', rk, slot, ARGV[3])
if event then event_log.saved(event, told, rk) end
return remember(ARGV[5], 1)
