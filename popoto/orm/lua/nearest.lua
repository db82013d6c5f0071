-- nearest: the records around a centre that satisfy a filter, nearest first, cut and read in one call.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map:
--                    near    the condition {'near', ...} (lib_where_near)
--                    where   tree of the other conditions (lib_where)
--                    offset, limit   of the whole answer
--                    gather  this many places are collected and sorted at once
--                    visit   places looked at at most
--                    out, fields   as in select
--
-- returns  the rows (lib_rows), at equal distance by key; or 'far' when more places must be visited than one call may
-- errors   none of its own
-- cost     O(m log n) for the m records that the smaller of filter and circle holds; where few of many are wanted: rings are
--          searched from the centre outwards, O(places in the last ring) and at most `visit`
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
LIB_ROWS
local q = cmsgpack.unpack(ARGV[1])
local near_by, wanted = q.near, q.offset + q.limit
assert(size_of.near) -- looking it up fills `near`

-- Those of the members that satisfy everything, as {metres, member}. An expired record has no place any more.
local function measured(members)
  if q.where[1] ~= 'all' then members = where.keep(q.where, members) end
  local out = {}
  for i = 1, #members do
    local metres = near.metres(near_by, members[i])
    if metres <= near_by[6] then out[#out + 1] = {metres, members[i]} end
  end
  return out
end

local function answer(found)
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] ~= b[2] and bytes_ordered(a[2], b[2])
  end)
  local out = {}
  for i = q.offset + 1, math.min(#found, wanted) do out[#out + 1] = found[i][2] end
  return read_rows(q, out)
end

-- Search rings from the centre outwards. What lies within the last radius by its coordinates is final: its candidates were
-- all looked at. nil when a circle holds more than `most` places before enough are found.
local function rings(most)
  local radius, seen, found = near_by[6] / 1024, {}, {}
  while radius > 1 and #near.candidates(near_by, radius, most + 1, true) > most do radius = radius / 32 end
  while true do
    radius = math.min(radius, near_by[6])
    local candidates, fresh = near.candidates(near_by, radius, most + 1), {}
    if #candidates > most then return nil end
    for i = 1, #candidates do
      local member = candidates[i][1]
      if not seen[member] then
        seen[member] = true
        fresh[#fresh + 1] = member
      end
    end
    for _, hit in ipairs(measured(fresh)) do found[#found + 1] = hit end
    local final = {}
    for i = 1, #found do
      if found[i][1] <= radius then final[#final + 1] = found[i] end
    end
    if #final >= wanted or radius >= near_by[6] then return final end
    radius = radius * 2
  end
end

-- 1. A few are wanted, and the filter lets through so many that rings will soon hold them.
local places = redis.call('ZCARD', near_by[2])
local in_filter = q.where[1] == 'all' and math.huge or where.size(q.where)
local found
if 4 * wanted * places / math.max(1, math.min(in_filter, places)) <= math.min(in_filter, q.gather) then
  found = rings(q.gather)
end
if found then return answer(found) end

-- 2. The circle or the filter holds few: look at all of those.
local in_circle = where.size(near_by)
if math.min(in_circle, in_filter) <= q.gather then
  return answer(measured(where.gather(in_filter < in_circle and q.where or near_by)))
end

-- 3. Both hold many.
found = rings(q.visit)
return found and answer(found) or 'far'
