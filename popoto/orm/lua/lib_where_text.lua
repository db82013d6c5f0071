-- lib_where_text: the text ops of lib_where: what an index, or a record's own key, knows of a text.
--
--   {'starts' | 'ends' | 'contains', how, field, text, base, escaped}
--     how      'key': the text is the first part of the record's key, and base is what stands before it; the order by name
--              is sorted by it. 'values': base::values lists the distinct texts of the field, each escaped as in the key of
--              its set, base:text. false: no index knows
--     escaped  the text, escaped as in a key; no escape begins with another one, so what begins alike is escaped alike
--
-- The one exception to that: the text "None" is escaped as /None, for None stands where there is no text.
-- A value stays listed while its set exists, so expired records may keep it there.
local LISTED_MOST = 10000 -- values that one call looks at: about 5 ms
local text_matches = {
  starts = function(text, needle) return string.sub(text, 1, #needle) == needle end,
  ends = function(text, needle) return needle == '' or string.sub(text, -#needle) == needle end,
  contains = function(text, needle) return string.find(text, needle, 1, true) ~= nil end,
}

local function unescaped(part)
  local out, at = {}, 1
  while true do
    local mark = string.find(part, '[/{]', at)
    if not mark then break end
    out[#out + 1] = string.sub(part, at, mark - 1)
    if string.byte(part, mark) == 47 then
      out[#out + 1] = string.sub(part, mark + 1, mark + 1)
      at = mark + 2
    else
      out[#out + 1] = ':'
      at = mark + 7 -- {&#58;}
    end
  end
  return at == 1 and part or table.concat(out) .. string.sub(part, at)
end

-- Bounds of the members that begin with these bytes.
local function prefix_bounds(low)
  local high = low
  while high ~= '' do
    local last = string.byte(high, -1)
    high = string.sub(high, 1, -2)
    if last < 255 then return '[' .. low, '(' .. high .. string.char(last + 1) end
  end
  return low == '' and '-' or '[' .. low, '+'
end

-- Whether an ordered set is sorted by its members' bytes: it is not once somebody else wrote a score there.
local function by_bytes(key) return redis.call('ZCOUNT', key, 0, 0) == redis.call('ZCARD', key) end

local function begins_none(c) return c[1] == 'starts' and c[4] == string.sub('None', 1, #c[4]) end

-- How many records of the order have exactly this first part.
local function with_first_part(c, part)
  local low, high = prefix_bounds(c[5] .. part .. ':')
  local alone = redis.call('ZSCORE', home.order, c[5] .. part) and 1 or 0
  return alone + redis.call('ZLEXCOUNT', home.order, low, high)
end

-- The listed values that satisfy the condition; false when they are too many to look at.
local function listed(c)
  if c.listed ~= nil then return c.listed end
  c.listed = false
  local key, found = c[5] .. '::values', nil
  if c[1] == 'starts' then
    local low, high = prefix_bounds(c[6])
    if not by_bytes(key) or redis.call('ZLEXCOUNT', key, low, high) > LISTED_MOST then return false end
    found = redis.call('ZRANGEBYLEX', key, low, high)
    if begins_none(c) and c[6] ~= '' and redis.call('ZSCORE', key, '/None') then found[#found + 1] = '/None' end
  else
    if redis.call('ZCARD', key) > LISTED_MOST then return false end
    found = {}
    for _, part in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if text_matches[c[1]](unescaped(part), c[4]) then found[#found + 1] = part end
    end
  end
  c.listed = found
  return found
end

local function size_of_text(c)
  if c[2] == 'key' and c[1] == 'starts' and by_bytes(home.order) then
    local low, high = prefix_bounds(c[5] .. c[6])
    local n = redis.call('ZLEXCOUNT', home.order, low, high)
    if begins_none(c) then
      n = n - with_first_part(c, 'None') + (c[6] ~= '' and with_first_part(c, '/None') or 0)
    end
    return n
  end
  local parts = c[2] == 'values' and listed(c)
  if not parts then return nil end
  local n = 0
  for i = 1, #parts do n = n + redis.call('SCARD', c[5] .. ':' .. parts[i]) end
  return n
end
size_of.starts, size_of.ends, size_of.contains = size_of_text, size_of_text, size_of_text

-- The text in a record's key; nil for None and for what is no key of the model.
local function text_in_key(c, rk)
  if string.sub(rk, 1, #c[5]) ~= c[5] then return nil end
  local stop = string.find(rk, ':', #c[5] + 1, true)
  local part = string.sub(rk, #c[5] + 1, stop and stop - 1)
  if part ~= 'None' then return unescaped(part) end
end

local function gather_text(c)
  local out = {}
  if c[2] == 'key' then
    local low, high = prefix_bounds(c[5] .. c[6])
    out = redis.call('ZRANGEBYLEX', home.order, low, high)
    if begins_none(c) then
      if c[6] ~= '' then
        low, high = prefix_bounds(c[5] .. '/None')
        for _, rk in ipairs(redis.call('ZRANGEBYLEX', home.order, low, high)) do out[#out + 1] = rk end
      end
      out = where.keep(c, out)
    end
    return out
  end
  for _, part in ipairs(listed(c)) do
    for _, rk in ipairs(redis.call('SMEMBERS', c[5] .. ':' .. part)) do out[#out + 1] = rk end
  end
  return out
end
gather_of.starts, gather_of.ends, gather_of.contains = gather_text, gather_text, gather_text

local function test_text(c, members)
  local holds, out = text_matches[c[1]], {}
  for i = 1, #members do
    local text
    if c[2] == 'key' then text = text_in_key(c, members[i])
    else text = packed_text(stored_bytes(members[i], c[3])) end
    out[i] = text ~= nil and holds(text, c[4])
  end
  return out
end
test_of.starts, test_of.ends, test_of.contains = test_text, test_text, test_text
