-- resolve_prediction: note how far off an open prediction was; where it was far off, the record is believed less.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed map:
--                    key         the hash of predictions (kind_prediction)
--                    expected    the packed entry that the error was computed from, or false: any
--                    error       number
--                    mode        how it was resolved
--                    now         Unix seconds
--                    partition   of the ordered set of errors
--                    signal      what each confidence field gets, or false
--                    lenient     true: a record that is gone has no prediction; false: it is an error
--                    event       of a model with an event stream (lib_event), or false
--                    fields      list of {confidence field, slot of its data, data of a record that has none}
-- ARGV[2]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  {'open', entry} when the stored entry is not the expected one: compute the error anew. {'none'} when there is no
--          open prediction. {'done', confidence as text, ...}: of each field; false where the record has none
-- errors   GONE, WRONGTYPE: nothing is written
-- cost     O(log n) a field
local rk = KEYS[1]
local before = answered(ARGV[2])
if before then return before end
local q = cmsgpack.unpack(ARGV[1])
if redis.call('EXISTS', rk) == 0 then
  if q.lenient then return {'none'} end
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
local beliefs = {}
local refusal = wrong_type(q.key, 'hash') or wrong_type(errors_key(q.key, q.partition), 'zset')
for i = 1, q.signal and #q.fields or 0 do
  local e = slot_entry(rk, q.fields[i][2])
  beliefs[i] = e or nil
  refusal = refusal or (e and kinds.c.probe(e, entry_key(e))) or nil
end
local told
if q.event and not refusal then told, refusal = event_log.begin(q.event, rk, true) end
if refusal then return redis.error_reply(refusal) end
if q.expected then
  local stored = redis.call('HGET', q.key, rk)
  if stored and stored ~= q.expected then return {'open', stored} end
end
if not resolve_prediction(q.key, rk, q.error, q.mode, q.now, q.partition) then return remember(ARGV[2], {'none'}) end
if told then log_resolved(q.event, told, q.error, q.mode) end
local reply = {'done'}
for i = 1, #q.fields do
  local entry, field = beliefs[i], q.fields[i][1]
  local c = entry and fold_signal(rk, entry, field, q.signal, q.fields[i][3], true)
  reply[i + 1] = c and string.format('%.17g', c) or false
  if c and told then log_confidence(q.event, told, field, q.signal, c) end
end
return remember(ARGV[2], reply)
