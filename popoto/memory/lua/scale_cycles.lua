-- scale_cycles: multiply the amplitudes of a record's cycles.
--
-- KEYS[1]  hash    the record; must exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  slot of the cycles (kind_cycles)
-- ARGV[2]  float   factor
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  flat list: period, amplitude, phase as text...; empty where the record has no cycles: nothing is written then
-- errors   GONE, WRONGTYPE: nothing is written
-- cost     O(cycles * log n)
local rk = KEYS[1]
local before = answered(ARGV[3])
if before then return before end
local slots = slots_of(rk)
if not slots then return gone(rk) end
local e, out = slots[ARGV[1]], {}
if e then
  local refusal = kinds.cy.probe(e, entry_key(e))
  if refusal then return redis.error_reply(refusal) end
  local cycles = scale_cycles(e, rk, tonumber(ARGV[2]))
  for i = 1, #cycles do
    for k = 1, 3 do out[#out + 1] = exact(cycles[i][k]) end
  end
end
return remember(ARGV[3], out)
