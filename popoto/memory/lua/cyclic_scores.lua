-- cyclic_scores: what given records are worth now, cycles and pressure included, from what is stored of each.
--
-- KEYS[1..]  hash   the records; after them the model's class set, order, expiry set and sentinel (never written)
-- ARGV[1]    bytes  packed map: field (the time), base (field of the base score, or false), now, rate
--
-- returns  a list of scores as text; false for a record that is gone or has no time
-- errors   none of its own
-- cost     O(records * cycles)
local q = cmsgpack.unpack(ARGV[1])
local decay = decay_of(q.now, q.rate)
local out = {}

local function on_top(rk)
  local slots = slots_of(rk) or {}
  local turning, pressing = 0, 0
  local e = slots[q.field .. '#cycles']
  for _, c in ipairs(e and cycles_in(redis.call('HGET', entry_key(e) .. ':cycles', rk)) or {}) do
    turning = turning + c[2] * math.cos(2 * math.pi * (q.now - c[3]) / c[1])
  end
  e = slots[q.field .. '#pressure']
  local data = e and pressure_in(redis.call('HGET', entry_key(e) .. ':pressure', rk))
  if data then pressing = data.rate * math.max((q.now - data.last_resolved) / 86400, 0) end
  return turning, pressing
end

for i = 1, #KEYS - 4 do
  local stored = redis.call('HMGET', KEYS[i], q.field, q.base or q.field)
  local readable, touched = pcall(cmsgpack.unpack, stored[1] or '\192')
  out[i] = false
  if readable and type(touched) == 'number' then
    local turning, pressing = on_top(KEYS[i])
    local decayed = (q.base and base_number(stored[2]) or 1) * decay.factor(touched)
    out[i] = string.format('%.17g', decayed + turning + pressing)
  end
end
return out
