-- claim: say which record owns a unique value, where the records of a model lie in several slots (popoto.orm.claims).
--
-- KEYS[1]  hash    the claim: owner = record key, pending = when it was claimed (ms) or 0 once the record is saved
-- KEYS[2]  -       sentinel of the same hash tag, never written: while the slot moves, the call is refused whole
-- ARGV[1]  string  key of the record that claims
-- ARGV[2]  string  '', or the owner that was found not to hold the value
-- ARGV[3]  string  '', or the `pending` that was found with it
-- ARGV[4]  int     ms in which an owner may still be about to be saved
--
-- returns  false when the record owns the value now; else {owner, pending, is it free once the owner does not hold it}
-- errors   none of its own
-- cost     O(1)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'owner', 'pending')
if held[1] and held[1] ~= ARGV[1] then
  local since = tonumber(held[2])
  local decided = since == 0 or now - since >= tonumber(ARGV[4])
  if not decided or held[1] ~= ARGV[2] or held[2] ~= ARGV[3] then
    return {held[1], held[2], decided and 1 or 0}
  end
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'pending', string.format('%.0f', now))
return false
