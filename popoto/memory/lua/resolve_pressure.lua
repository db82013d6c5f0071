-- resolve_pressure: what built up on a record is dealt with; it builds up anew from now on.
--
-- KEYS[1]  hash    the record; must exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  slot of the pressure (kind_cycles)
-- ARGV[2]  float   rate a day
-- ARGV[3]  float   the time, Unix seconds
-- ARGV[4]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1
-- errors   GONE, UNINDEXED, WRONGTYPE: nothing is written
-- cost     O(log n)
local rk = KEYS[1]
local before = answered(ARGV[4])
if before then return before end
local slots = slots_of(rk)
if not slots then return gone(rk) end
local e = slots[ARGV[1]]
if not e then
  return redis.error_reply('UNINDEXED ' .. rk .. ' has no pressure under ' .. ARGV[1] .. ' (it was stored before the ' ..
    'field had any); nothing was written. Call save(), or rebuild_indexes() for all records.')
end
local refusal = kinds.pr.probe(e, entry_key(e))
if refusal then return redis.error_reply(refusal) end
relieve(e, rk, tonumber(ARGV[2]), tonumber(ARGV[3]))
return remember(ARGV[4], 1)
