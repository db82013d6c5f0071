-- lib_where_between: the op of lib_where for stored values that a double, or their bytes, do not tell apart.
--
--   {'between', field, as, low, open, high, open, missing, low double, high double, zone, tag}
--     as        'int', 'Decimal': low and high are decimal texts; 'datetime', 'time': {seconds, microseconds}, in UTC
--     low, high false: no end; open: without the end itself
--     missing   what holds for a record without the field
--     low double, high double   'int', 'Decimal': the nearest doubles, which settle all but near misses
--     zone      'datetime', 'time': 'zoned' or 'naive' = only values with or without an offset, 'any' = naive ones count
--               as UTC
--     tag       'datetime', 'time': the bytes before the packed text
--
-- Decides as Python's comparison of the decoded values does. What is no such value (NaN too) lies between nothing.
LIB_NUMBER
local function sign_of(v)
  if v[2] == '0' then return 0 end
  return v[1] and -1 or 1
end

-- -1, 0 or 1: the order of two finite decimals {negative, digits, exponent}.
local function decimals_compared(a, b)
  local sign = sign_of(a)
  if sign ~= sign_of(b) then return sign < sign_of(b) and -1 or 1 end
  if sign == 0 then return 0 end
  local a_top, b_top = #a[2] + a[3], #b[2] + b[3]
  if a_top ~= b_top then return a_top < b_top and -sign or sign end
  local size = math.max(#a[2], #b[2])
  return sign * bytes_compared(a[2] .. string.rep('0', size - #a[2]), b[2] .. string.rep('0', size - #b[2]))
end

local function decimal_of(raw, as)
  if as == 'Decimal' then return number.Decimal.read(raw) end
  local text = number.int.read(raw)
  return text and number.Decimal.parse(text)
end

-- The order of a stored number, whose nearest double is n, and a bound. No decimal: an infinity.
local function number_to(raw, n, as, text, double)
  if n ~= double then return n < double and -1 or 1 end
  local a, b = decimal_of(raw, as), number.Decimal.parse(text)
  if a and b then return decimals_compared(a, b) end
  if not a and not b then return 0 end
  local outside = n > 0 and 1 or -1
  return a and -outside or outside
end

-- Days from 1970-01-01 in the proleptic Gregorian calendar.
local function days_of(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * (month - 3) + 2) / 5) + day - 1
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

-- Seconds and microseconds of an offset +HH:MM[:SS[.ffffff]]; nil for another text.
local function offset_of(zone)
  if zone == '' then return 0, 0 end
  local sign, hours, minutes, rest = string.match(zone, '^([+-])(%d%d):(%d%d)(.*)$')
  if not sign then return nil end
  local seconds, micros = 0, 0
  if rest ~= '' then
    local s, f = string.match(rest, '^:(%d%d)%.?(%d*)$')
    if not s then return nil end
    seconds, micros = tonumber(s), tonumber(f) or 0
  end
  local factor = sign == '-' and -1 or 1
  return factor * (hours * 3600 + minutes * 60 + seconds), factor * micros
end

-- {seconds, microseconds} in UTC of a stored datetime or time; nil for what is none, or of another zone.
local function moment_of(raw, c)
  local tag = c[12]
  local text = string.sub(raw, 1, #tag) == tag and packed_text(string.sub(raw, #tag + 1))
  if not text then return nil end
  local days, clock = 0, text
  if c[3] == 'datetime' then
    local day
    day, clock = string.match(text, '^(%d+)T(.+)$')
    if not day or #day > 8 then return nil end
    day = string.rep('0', 8 - #day) .. day -- years before 1000 were once written without their zeros
    days = days_of(tonumber(string.sub(day, 1, 4)), tonumber(string.sub(day, 5, 6)), tonumber(string.sub(day, 7)))
  end
  local hour, minute, second, micros, zone = string.match(clock, '^(%d%d):(%d%d):(%d%d)%.(%d%d%d%d%d%d)(.*)$')
  if not hour then return nil end
  if c[11] ~= 'any' and (c[11] == 'naive') ~= (zone == '') then return nil end
  local off, off_micros = offset_of(zone)
  if not off then return nil end
  if c[3] == 'time' and off_micros ~= 0 then -- Python's times compare by the offset's whole seconds, rounded down
    off, off_micros = off_micros < 0 and off - 1 or off, 0
  end
  local seconds = days * 86400 + hour * 3600 + minute * 60 + second - off
  micros = tonumber(micros) - off_micros
  if micros < 0 then seconds, micros = seconds - 1, micros + 1000000 end
  if micros >= 1000000 then seconds, micros = seconds + 1, micros - 1000000 end
  return {seconds, micros}
end

local function moment_to(m, bound)
  local place = m[1] ~= bound[1] and 1 or 2
  return m[place] < bound[place] and -1 or m[place] > bound[place] and 1 or 0
end

local function lies_between(raw, c)
  local is_number = c[3] == 'int' or c[3] == 'Decimal'
  local value
  if is_number then value = stored_number(raw) else value = moment_of(raw, c) end
  if value == nil or value ~= value then return false end
  local function order(bound, double)
    if is_number then return number_to(raw, value, c[3], bound, double) end
    return moment_to(value, bound)
  end
  if c[4] then
    local above = order(c[4], c[9])
    if above < 0 or (above == 0 and c[5]) then return false end
  end
  if c[6] then
    local below = order(c[6], c[10])
    if below > 0 or (below == 0 and c[7]) then return false end
  end
  return true
end

function test_of.between(c, members) return tested_bytes(c, members, lies_between) end
