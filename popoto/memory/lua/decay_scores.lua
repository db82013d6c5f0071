-- decay_scores: what given records are worth now, from their own hashes.
--
-- KEYS[1..]  hash   the records; after them the model's class set, order, expiry set and sentinel (never written)
-- ARGV[1]    bytes  packed map: field (the time), base (field of the base score, or false), now, rate
--
-- returns  a list of scores as text; false for a record that is gone or has no time
-- errors   none of its own
-- cost     O(records)
local q = cmsgpack.unpack(ARGV[1])
local decay = decay_of(q.now, q.rate)
local out = {}
for i = 1, #KEYS - 4 do
  local stored = redis.call('HMGET', KEYS[i], q.field, q.base or q.field)
  local readable, touched = pcall(cmsgpack.unpack, stored[1] or '\192')
  out[i] = false
  if readable and type(touched) == 'number' then
    out[i] = string.format('%.17g', (q.base and base_number(stored[2]) or 1) * decay.factor(touched))
  end
end
return out
