-- lib_decay: the decay formula (popoto/memory/decay.py).
--
-- decay_of(now, rate)   returns a table:
--   factor(t)   max((now - t) / 86400, 0.01) ^ -rate, never 0 and never infinite, so that no product of it is NaN
--   above(t)    no less than the factor of any member that is touched at t or, walking from high factors to low, later
--               in the walk; below(t) likewise from low to high. `pow` may be off in its last bits, so between two
--               different times these leave room for that; inside the floor all factors are one number.
-- base_number(raw)      what the stored bytes of a field count as base: a number or a tagged Decimal or big int;
--                       anything else 1
local LEAST, MOST = 5e-324, 1.7976931348623157e308
local ROOM = 1e-15

local function decay_of(now, rate)
  local function bounded(f) return f < LEAST and LEAST or f > MOST and MOST or f end
  local floor = bounded(0.01 ^ -rate)
  local decay = {floor = floor}
  local power, falls = -rate, rate > 0

  function decay.factor(t)
    local days = (now - t) / 86400
    if days <= 0.01 then return floor end
    local f = days ^ power
    if f < LEAST then f = LEAST elseif f > MOST then f = MOST end
    if falls then return f < floor and f or floor end
    return f > floor and f or floor
  end

  function decay.above(t)
    local f = decay.factor(t)
    if f == floor then return f end
    f = bounded(f * (1 + ROOM))
    return (rate > 0 and f > floor) and floor or f
  end

  function decay.below(t)
    local f = decay.factor(t)
    if f == floor then return f end
    f = bounded(f * (1 - ROOM))
    return (rate < 0 and f < floor) and floor or f
  end

  return decay
end

local function base_number(raw)
  if not raw then return 1 end
  local readable, value = pcall(cmsgpack.unpack, raw)
  if not readable then return 1 end
  if type(value) == 'table' and (value.__Decimal__ or value.__int__) and type(value.as_encodable) == 'string' then
    value = tonumber(value.as_encodable)
  end
  if type(value) ~= 'number' or value ~= value then return 1 end
  return value
end
