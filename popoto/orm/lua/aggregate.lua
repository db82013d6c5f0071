-- aggregate: counts, sums, least and greatest values of the records that satisfy a filter; what is large goes in slices.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map: what lib_walk reads (see select.lua), `shared` as there, and
--                  wants   list of {op, field or false, type}: op 'count', 'sum', 'min' or 'max'; type as Python names it
--
-- returns  'shared' when one of those sets is not empty; else {next, results}, next as in select.lua, one result for each
--          want: {values that are not None, records without the field, partial, odd}. partial of a sum: its text (for a
--          float two numbers that add up to it, as text); odd: bytes that are left to Python: candidates for the
--          least and greatest, and values that are no plain number.
-- errors   none of its own
-- cost     that of the filter, and 1 us (int, float) to 8 us (Decimal) for each record and want
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
LIB_ROWS
LIB_WALK
LIB_NUMBER
local q = cmsgpack.unpack(ARGV[1])
for i = 1, #q.shared do
  if redis.call('SCARD', q.shared[i]) > 0 then return 'shared' end
end
local NONE = '\192'

local summing = {}

-- An int: a double while it is exact, text beyond.
function summing.int(r)
  local small, large = 0, '0'
  return function(raw)
    local value = stored_number(raw)
    if value and value == math.floor(value) and math.abs(value) < 4503599627370496 then
      small = small + value
      if math.abs(small) < 4503599627370496 then return end
    else
      local text = number.int.read(raw)
      if not text then
        r.odd[#r.odd + 1] = raw
        return
      end
      large = number.int.add(large, text) or large
    end
    large = number.int.add(large, string.format('%.0f', small))
    small = 0
  end, function() return number.int.add(large, string.format('%.0f', small)) end
end

-- A float: the sum and what its rounding lost (Neumaier 1974).
function summing.float(r)
  local sum, lost = 0, 0
  return function(raw)
    local value = number.float.read(raw)
    if not value then
      r.odd[#r.odd + 1] = raw
      return
    end
    local next_sum = sum + value
    if math.abs(sum) >= math.abs(value) then lost = lost + ((sum - next_sum) + value)
    else lost = lost + ((value - next_sum) + sum) end
    sum = next_sum
  end, function()
    if lost ~= lost or math.abs(lost) == math.huge then lost = 0 end
    return {string.format('%.17g', sum), string.format('%.17g', lost)}
  end
end

function summing.Decimal(r)
  local sum = {false, '0', 0}
  return function(raw)
    local value = number.Decimal.read(raw)
    local next_sum = value and number.Decimal.add(sum, value)
    if next_sum then sum = next_sum else r.odd[#r.odd + 1] = raw end
  end, function() return number.Decimal.text(sum) end
end

local AS_NUMBER = {int = true, float = true, Decimal = true}
local TEXT_SIZE = {date = 8, datetime = 24, time = 15}

-- What the values of a type are ordered by on the server; nil leaves a value to Python.
local function ranked_by(kind)
  if AS_NUMBER[kind] then
    return function(raw)
      local n = stored_number(raw)
      return n == n and n or nil
    end, function(a, b) return a < b end
  end
  local size = TEXT_SIZE[kind]
  local function text(raw)
    if not size then return packed_text(raw) end
    local ok, value = pcall(cmsgpack.unpack, raw)
    local body = ok and type(value) == 'table' and value.as_encodable
    return type(body) == 'string' and #body == size and body or nil
  end
  return text, function(a, b) return a ~= b and bytes_ordered(a, b) end
end

-- Candidates: the bytes of the best, of all that equal it in the server's eyes, and of those it cannot rank.
local function extreme(r, kind, greatest)
  local rank, less = ranked_by(kind)
  local best, ties, seen = nil, {}, {}
  return function(raw)
    local value = rank(raw)
    if value == nil then
      if not seen[raw] then
        seen[raw] = true
        r.odd[#r.odd + 1] = raw
      end
      return
    end
    local better
    if best == nil then better = true
    elseif greatest then better = less(best, value)
    else better = less(value, best) end
    if better then best, ties = value, {[raw] = true}
    elseif value == best then ties[raw] = true end
  end, function()
    for raw in pairs(ties) do r.odd[#r.odd + 1] = raw end
    return false
  end
end

local members, more = walk.members(q)
local results, takes, finishes = {}, {}, {}
for w = 1, #q.wants do
  local op, kind = q.wants[w][1], q.wants[w][3]
  local r = {count = 0, missing = 0, odd = {}}
  results[w] = r
  if op == 'sum' then takes[w], finishes[w] = summing[kind](r)
  elseif op == 'min' or op == 'max' then takes[w], finishes[w] = extreme(r, kind, op == 'max') end
end

local fields, places = {}, {}
for w = 1, #q.wants do
  local name = q.wants[w][2]
  if name and not places[name] then
    fields[#fields + 1] = name
    places[name] = #fields
  end
end

for i = 1, #members do
  local raws = #fields > 0 and redis.pcall('HMGET', members[i], unpack(fields)) or {}
  local gone = raws.err ~= nil
  if not gone and #fields > 0 then
    local any = false
    for k = 1, #raws do any = any or raws[k] end
    gone = not any and redis.call('EXISTS', members[i]) == 0
  end
  for w = 1, not gone and #q.wants or 0 do
    local r, name = results[w], q.wants[w][2]
    local raw = name and raws[places[name]]
    if not name then r.count = r.count + 1
    elseif not raw then r.missing = r.missing + 1
    elseif raw ~= NONE then
      r.count = r.count + 1
      if takes[w] then takes[w](raw) end
    end
  end
end

local out = {}
for w = 1, #results do
  local r = results[w]
  out[w] = {r.count, r.missing, finishes[w] and finishes[w]() or false, r.odd}
end
return {more, out}
