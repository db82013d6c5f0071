-- observe: what an agent did with records that were put before it; all effects of a batch in one step.
--
-- KEYS[1..]  hash    the records, one for each outcome; behind them a sentinel of the same hash tag, never written
-- ARGV[1]    bytes   packed map:
--                      now         Unix seconds
--                      outcomes    one for each record: 'acted', 'used', 'dismissed', 'deferred' or 'contradicted'
--                      touches     list of {slot of a decaying field, which is also its name, the time as the hash stores it}
--                      reads       {ordered set of confirmed reads, how many times a log holds}, or false
--                      cycles      list of slots
--                      pressures   list of {slot, rate a day}
--                      factors     outcome -> what amplitudes are multiplied by
--                      beliefs     list of {confidence field, slot of its data, data of a record that has none}
--                      signals     outcome -> what confidences get
--                      discharge   a contradicted record that is believed less than this is relieved of its pressure
--                      ledger      the hash of predictions, or false
--                      errors      one for each record: {error, partition, signal or false}, or false
--                      event       of a model with an event stream (lib_event), or false; `changed` = what a touch changes
-- ARGV[2]    string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  for each record {1, confidence as text or false, ...}; {0} where it is gone: nothing was done for it
-- errors   WRONGTYPE: nothing is written, for no record
-- cost     O(records * fields * log n)
local before = answered(ARGV[2])
if before then return before end
local q = cmsgpack.unpack(ARGV[1])
local count = #KEYS - 1
local CONFIRMS = {acted = true, used = true}

local slots = {}
for i = 1, count do slots[i] = slots_of(KEYS[i]) or false end

-- 1. Everything that can refuse.
local function foreign_key(rk, entries)
  local refusal = wrong_type(rk, 'hash')
  for _, touch in ipairs(q.touches) do
    refusal = refusal or (entries[touch[1]] and wrong_type(entry_key(entries[touch[1]]), 'zset'))
  end
  for _, e in pairs(entries) do
    if e[2] == 'cy' or e[2] == 'pr' or e[2] == 'c' or e[2] == 'rp' then
      refusal = refusal or kinds[e[2]].probe(e, entry_key(e))
    end
  end
  return refusal or (q.reads and foreign_access_key(q.reads[1], rk)) or nil
end

local told = {}
for i = 1, count do
  local refusal = slots[i] and foreign_key(KEYS[i], slots[i])
  if slots[i] and q.errors[i] then
    refusal = refusal or wrong_type(q.ledger, 'hash') or wrong_type(errors_key(q.ledger, q.errors[i][2]), 'zset')
  end
  if q.event and slots[i] and not refusal then told[i], refusal = event_log.begin(q.event, KEYS[i], true) end
  if refusal then return redis.error_reply(refusal) end
end

-- 2. Effects.
local function touched(rk, entries)
  for _, touch in ipairs(q.touches) do
    local e = entries[touch[1]]
    if e then
      redis.call('ZADD', entry_key(e), exact(q.now), rk)
      redis.call('HSET', rk, touch[1], touch[2])
    end
  end
end

local function relieved(rk, entries)
  for _, pressure in ipairs(q.pressures) do
    local e = entries[pressure[1]]
    if e then relieve(e, rk, pressure[2], q.now) end
  end
end

local function swung(rk, entries, factor)
  for _, slot in ipairs(q.cycles) do
    if entries[slot] then scale_cycles(entries[slot], rk, factor) end
  end
end

local function believed(rk, entries, signal, fall, out, state)
  local lowest = math.huge
  for b, belief in ipairs(q.beliefs) do
    local e = entries[belief[2]]
    if e then
      local c = fold_signal(rk, e, belief[1], signal, belief[3], fall)
      out[b + 1] = exact(c)
      if state then log_confidence(q.event, state, belief[1], signal, c) end
      lowest = math.min(lowest, c)
    end
  end
  return lowest
end

local reply = {}
for i = 1, count do
  local rk, outcome, entries, out = KEYS[i], q.outcomes[i], slots[i], {0}
  if entries then
    out[1] = 1
    for b = 1, #q.beliefs do out[b + 1] = false end
    local state = told[i]
    if outcome == 'acted' then touched(rk, entries) end
    if outcome == 'acted' and state and #q.touches > 0 then event_log.saved(q.event, state, rk) end
    if q.reads and CONFIRMS[outcome] then confirm_reads(q.reads[1], rk, q.reads[2])
    elseif q.reads then discard_reads(q.reads[1], rk) end
    if q.factors[outcome] then swung(rk, entries, q.factors[outcome]) end
    if outcome == 'acted' then relieved(rk, entries) end
    local lowest = q.signals[outcome] and believed(rk, entries, q.signals[outcome], false, out, state)
    local expected = q.errors[i]
    if expected and resolve_prediction(q.ledger, rk, expected[1], 'observed', q.now, expected[2]) then
      if state then log_resolved(q.event, state, expected[1], 'observed') end
      if expected[3] then believed(rk, entries, expected[3], true, out, state) end
    end
    if outcome == 'contradicted' and lowest and lowest < q.discharge then relieved(rk, entries) end
  end
  withdraw_everywhere(rk)
  reply[i] = out
end
return remember(ARGV[2], reply)
