-- update_confidence: fold one signal into a record's confidence.
--
-- KEYS[1]  hash    the record; must exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  field of the record that holds the confidence
-- ARGV[2]  string  slot of its companion data
-- ARGV[3]  float   signal, 0 to 1
-- ARGV[4]  bytes   data of a record that has none yet
-- ARGV[5]  bytes   packed event of a model with an event stream (lib_event), or ''
-- ARGV[6]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  the new confidence as text, every digit kept
-- errors   GONE when the record or its companion's place is not stored; nothing is written
-- cost     O(log n)
local rk = KEYS[1]
local before = answered(ARGV[6])
if before then return before end
local entry = redis.call('EXISTS', rk) == 1 and slot_entry(rk, ARGV[2])
if not entry then
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired), or was stored without the field ' ..
    ARGV[1] .. '; nothing was written. save() it first.')
end
local key, rank = entry_key(entry), confidence_rank_key(entry)
local refusal = wrong_type(key, 'hash') or wrong_type(rank, 'zset')
local event, told = ARGV[5] ~= '' and cmsgpack.unpack(ARGV[5])
if event and not refusal then told, refusal = event_log.begin(event, rk, true) end
if refusal then return redis.error_reply(refusal) end

local c = fold_signal(rk, entry, ARGV[1], tonumber(ARGV[3]), ARGV[4])
if event then log_confidence(event, told, ARGV[1], tonumber(ARGV[3]), c) end
return remember(ARGV[6], string.format('%.17g', c))
