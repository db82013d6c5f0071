-- lib_where_near: the op of lib_where for places within a radius.
--
--   {'near', geo key, field, latitude, longitude, metres}   the record's place is at most so far from the centre
--
-- The ordered set finds the candidates; it knows each place to 0.34 m. Who it puts within ERROR_M of the border is decided
-- by the coordinates in the record. A condition remembers what it found: c.found, its members; c.beyond, how many candidates it
-- has more than.
local EARTH_M, DEGREE_M, ERROR_M = 6372797.560856, 111226.3, 1
local FEW = 4000 -- places that are looked at once and remembered

-- What the bytes of a place begin with as long as both coordinates are floats, and that is always so but for other writers.
local PLACE = '\130\169__tuple__\195\172as_encodable\146\203'

-- The stored (latitude, longitude) of a record, or nil.
function near.place(rk, field)
  local raw = stored_bytes(rk, field)
  if not raw then return nil end
  if #raw == #PLACE + 17 and string.sub(raw, 1, #PLACE) == PLACE and string.byte(raw, #PLACE + 9) == 203 then
    local latitude, _, longitude = struct.unpack('>dBd', raw, #PLACE + 1)
    return latitude, longitude
  end
  local read, value = pcall(cmsgpack.unpack, raw)
  local place = read and type(value) == 'table' and value.as_encodable
  if type(place) ~= 'table' or type(place[1]) ~= 'number' or type(place[2]) ~= 'number' then return nil end
  return place[1], place[2]
end

-- The haversine formula as the server has it, on stored coordinates; math.huge where there are none.
function near.metres(c, rk)
  local latitude, longitude = near.place(rk, c[3])
  if not latitude then return math.huge end
  local here, there = math.rad(c[4]), math.rad(latitude)
  local v = math.sin((math.rad(longitude) - math.rad(c[5])) / 2)
  if v == 0 then return EARTH_M * math.abs(there - here) end
  local u = math.sin((there - here) / 2)
  return 2 * EARTH_M * math.asin(math.sqrt(math.min(1, u * u + math.cos(here) * math.cos(there) * v * v)))
end

-- GEOSEARCH misses places where the circle holds a pole: all places are candidates there.
function near.holds_pole(c, metres) return math.abs(c[4]) + metres / DEGREE_M > 88 end

-- At most `most` (any) of the places that may lie within `metres`, as {member, metres by the geohash}, or as members only
-- (`plain`). The outermost cells have no neighbour beyond them, so the centre keeps off the last lines by less than the
-- error.
function near.candidates(c, metres, most, plain)
  if near.holds_pole(c, metres) then
    local out = redis.call('ZRANGE', c[2], 0, most - 1)
    if plain then return out end
    for i = 1, #out do out[i] = {out[i], math.huge} end
    return out
  end
  local latitude = math.max(-85.0511287, math.min(85.0511287, c[4]))
  local longitude = math.max(-179.9999999, math.min(179.9999999, c[5]))
  local search = {'GEOSEARCH', c[2], 'FROMLONLAT', longitude, latitude, 'BYRADIUS', metres + ERROR_M, 'm', 'COUNT', most, 'ANY'}
  if not plain then search[#search + 1] = 'WITHDIST' end
  return redis.call(unpack(search))
end

-- The members of a condition; nil when it has more than `most` candidates.
local function found_near(c, most)
  if c.found or (c.beyond or -1) >= most then return c.found end
  if redis.call('ZCARD', c[2]) > most and #near.candidates(c, c[6], most + 1, true) > most then
    c.beyond = most
    return nil
  end
  local candidates = near.candidates(c, c[6], most + 1)
  c.found = {}
  for i = 1, #candidates do
    local member = candidates[i][1]
    if tonumber(candidates[i][2]) <= c[6] - ERROR_M or near.metres(c, member) <= c[6] then
      c.found[#c.found + 1] = member
    end
  end
  return c.found
end

function size_of.near(c)
  local found = found_near(c, FEW)
  return found and #found or redis.call('ZCARD', c[2])
end

function gather_of.near(c) return found_near(c, redis.call('ZCARD', c[2])) end

function test_of.near(c, members)
  local out = {}
  if found_near(c, FEW) then
    if not c.is_near then
      c.is_near = {}
      for _, member in ipairs(c.found) do c.is_near[member] = true end
    end
    for i = 1, #members do out[i] = c.is_near[members[i]] == true end
  else
    for i = 1, #members do out[i] = near.metres(c, members[i]) <= c[6] end
  end
  return out
end
