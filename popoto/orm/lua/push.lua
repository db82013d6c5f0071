-- push: put an element in front of a record's capped list, and drop what is beyond its length.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  the field, whose list is at record::field
-- ARGV[2]  bytes   the packed element
-- ARGV[3]  int     most elements kept
-- ARGV[4]  bytes   packed event of a model with an event stream (lib_event), or ''
-- ARGV[5]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  how many elements the list has
-- errors   MISSING, UNINDEXED, WRONGTYPE: nothing is written
-- cost     O(1); the first element of a list: O(entries of the record)
local rk, field = KEYS[1], ARGV[1]
local list, token = rk .. '::' .. field, ARGV[5]
local event = ARGV[4] ~= '' and cmsgpack.unpack(ARGV[4])
local before = answered(token)
if before then return before end

if redis.call('EXISTS', rk) == 0 then
  return redis.error_reply('MISSING ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
local refusal = wrong_type(rk, 'hash') or wrong_type(list, 'list')
if refusal then return redis.error_reply(refusal) end

local is_new = redis.call('EXISTS', list) == 0
if is_new then
  local _, entries = stored_occupancy(rk)
  local known = false
  for i = 1, #entries do known = known or (entries[i][1] == field and entries[i][2] == 'l') end
  if not known then
    return redis.error_reply('UNINDEXED ' .. rk .. ' was stored without a list ' .. field .. ', so that nothing would ' ..
      'remove the list with it; nothing was written. Call save(), or rebuild_indexes() for all records.')
  end
end
local told
if event then
  told, refusal = event_log.begin(event, rk, true)
  if refusal then return redis.error_reply(refusal) end
end
redis.call('LPUSH', list, ARGV[2])
redis.call('LTRIM', list, 0, ARGV[3] - 1)
if is_new then kinds.l.expire({field}, rk) end
if event then event_log.saved(event, told, rk) end
return remember(token, redis.call('LLEN', list))
