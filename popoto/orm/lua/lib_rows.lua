-- lib_rows: reading the records of an answer, and the order of bytes.
--
-- read_rows(q, members)   q.out 'keys' = the members; 'fields' = key, HMGET of q.fields, key, HMGET..., behind the values a
--                         1 or 0 for each condition of q.marks: does it hold; 'distinct' = the lists of HMGET without
--                         keys, equal ones once. A record that cannot be read has false in place of its values.
-- read_records(q, members)  the same records packed for speed, without those that vanished: {keys, text, others, missing,
--                         unread}. text: the first q.clear values of each, which are one msgpack object each, one behind the
--                         other with a nil between; others: the values behind them up to q.kept, false where there is
--                         none; missing: the places (from 1) in text where a nil stands for none; unread: keys of no record
-- bytes_ordered(a, b)     true when a is b or before it
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

local NIL = '\192'

-- The values of one record with a nil for each that is missing, whose places go to `missing`; false for no record.
local function patched(q, values, before, missing)
  local found = false
  for k = 1, #q.fields do found = found or values[k] end
  if not found then return false end
  for k = 1, q.clear or 0 do
    if not values[k] then
      values[k] = NIL
      missing[#missing + 1] = before + k
    end
  end
  return values
end

local function read_records(q, members)
  local fields, clear, kept = q.fields, q.clear or 0, q.kept or 0
  local call, concat = redis.pcall, table.concat
  local keys, texts, others, missing, unread = {}, {}, {}, {}, {}
  local n = 0
  for i = 1, #members do
    local values = call('HMGET', members[i], unpack(fields))
    if values.err then unread[#unread + 1] = members[i]
    else
      local whole, text = pcall(concat, values, NIL, 1, clear)
      if not whole or clear == 0 then
        values = patched(q, values, n * clear, missing)
        text = values and concat(values, NIL, 1, clear)
      end
      if text then
        n = n + 1
        keys[n], texts[n] = members[i], text
        for k = clear + 1, kept do others[#others + 1] = values[k] end
      end
    end
  end
  return {keys, concat(texts, NIL), others, missing, unread}
end

-- Lua compares strings by the server's locale; ordered sets compare bytes.
local function bytes_ordered(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a <= #b
end
