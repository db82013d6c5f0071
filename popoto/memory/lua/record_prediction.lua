-- record_prediction: note what is expected of a record, in place of what was expected before.
--
-- KEYS[1]  hash    the record; must exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  the hash of predictions (kind_prediction)
-- ARGV[2]  bytes   the prediction, packed
-- ARGV[3]  float   the time, Unix seconds
-- ARGV[4]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1
-- errors   GONE, WRONGTYPE: nothing is written
-- cost     O(1)
local rk, key = KEYS[1], ARGV[1]
local before = answered(ARGV[4])
if before then return before end
if redis.call('EXISTS', rk) == 0 then
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
local refusal = wrong_type(key, 'hash')
if refusal then return redis.error_reply(refusal) end

local old = prediction_of(key, rk)
if not old then claim_entry(rk, {'@prediction', 'p', key, {}, false}) end
redis.call('HSET', key, rk, cmsgpack.pack({
  predicted = ARGV[2], recorded_at = tonumber(ARGV[3]), resolved = false, resolution_mode = false,
  prediction_error = false, resolved_at = false, partition = old and old.partition or false,
}))
return remember(ARGV[4], 1)
