-- lib_rows: reading the records of an answer, and the order of bytes.
--
-- read_rows(q, members)   q.out 'keys' = the members; 'fields' = key, HMGET of q.fields, key, HMGET..., behind the values a
--                         1 or 0 for each condition of q.marks: does it hold; 'distinct' = the lists of HMGET without
--                         keys, equal ones once. A record that cannot be read has false in place of its values.
-- bytes_ordered(a, b)     true when a is b or before it
-- and what lib_records has
local function marked(marks, members, rows)
  for m = 1, #marks do
    local holds = where.test(marks[m], members)
    for i = 1, #members do
      local values = rows[2 * i]
      if values then values[#values + 1] = holds[i] and 1 or 0 end
    end
  end
  return rows
end

local function distinct_rows(q, members)
  local rows, seen = {}, {}
  for i = 1, #members do
    local values = redis.pcall('HMGET', members[i], unpack(q.fields))
    if not values.err then
      local same = {}
      for k = 1, #values do same[k] = values[k] and #values[k] .. ':' .. values[k] or '-' end
      same = table.concat(same, ',', 1, #same - 1) .. (values[#values] and '+' or '-')
      if not seen[same] then
        seen[same] = true
        rows[#rows + 1] = values
      end
    end
  end
  return rows
end

local function read_rows(q, members)
  if q.out == 'keys' then return members end
  if q.out == 'distinct' then return distinct_rows(q, members) end
  local rows = {}
  for i = 1, #members do
    local values = redis.pcall('HMGET', members[i], unpack(q.fields))
    rows[#rows + 1] = members[i]
    rows[#rows + 1] = (not values.err) and values or false
  end
  return q.marks and marked(q.marks, members, rows) or rows
end

LIB_RECORDS
-- Lua compares strings by the server's locale; ordered sets compare bytes.
local function bytes_ordered(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a <= #b
end
