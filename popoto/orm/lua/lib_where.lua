-- lib_where: conditions on records, as a tree that the index keys answer.
--
--   {'all'}                               every record of the model
--   {'set', key, ...}                     member of any of these sets
--   {'range', key, min, max}              score in range (ZRANGEBYSCORE syntax)
--   {'starts', ...}  {'ends', ...}  {'contains', ...}   text lookups: lib_where_text
--   {'raw', field, bytes, ...}            the stored bytes of a field are one of these; a final false: or it is missing
--   {'value', field, as, low, open, high, open, missing, tag}   the stored value lies between low and high (false: no end;
--                                         open: without the end itself). as 'number': numbers, of Decimals the nearest
--                                         double; 'text': the text behind the tag, byte by byte; a longer one passes.
--                                         missing: what holds for a record without the field
--   {'between', ...}                      the same where neither decides: lib_where_between
--   {'keys', rk, ...}                     these records
--   {'near', ...}                         places within a radius: lib_where_near
--   {'owner', ...}                        the record of a unique composite index: lib_where_owner
--   {'related', ...}                      a condition on the record that a relationship points to: lib_where_related
--   {'not', c}  {'and', c, ...}  {'or', c, ...}
--
-- where.size(c)     how many records satisfy it, at most; math.huge when no index knows
-- where.gather(c)   those records, each once (only when the size is small)
-- where.test(c, members)  a list of booleans
-- `home` {class, order, expiry} is set by the script that includes this fragment.
local where = {}
local CHUNK = 4000 -- unpack() fails from 8,000 values

-- Text of a packed str, nil for anything else. (cmsgpack.unpack raises on corrupt bytes; this does not.)
local function packed_text(raw)
  if not raw then return nil end
  local head = string.byte(raw, 1)
  if not head then return nil end
  if head >= 0xa0 and head <= 0xbf then return string.sub(raw, 2) end
  if head == 0xd9 then return string.sub(raw, 3) end
  if head == 0xda then return string.sub(raw, 4) end
  if head == 0xdb then return string.sub(raw, 6) end
end

-- One table an aspect, one function an op; a fragment that adds an op fills all three (a missing size = no index knows).
local size_of, gather_of, test_of = {}, {}, {}

function where.size(c)
  local known = size_of[c[1]]
  return known and known(c) or math.huge
end

-- That number, where it is exact while nothing has expired; else nil.
function where.exactly(c)
  local op = c[1]
  if op == 'set' or op == 'range' or op == 'starts' or op == 'ends' or op == 'contains' then
    return size_of[op](c)
  end
end

function where.gather(c) return gather_of[c[1]](c) end

function size_of.all() return redis.call('ZCARD', home.order) end

function size_of.set(c)
  local n = 0
  for i = 2, #c do n = n + redis.call('SCARD', c[i]) end
  return n
end

function size_of.range(c) return redis.call('ZCOUNT', c[2], c[3], c[4]) end

function size_of.keys(c) return #c - 1 end

size_of['and'] = function(c)
  local n = math.huge
  for i = 2, #c do n = math.min(n, where.size(c[i])) end
  return n
end

size_of['or'] = function(c)
  local n = 0
  for i = 2, #c do n = n + where.size(c[i]) end
  return n
end

function gather_of.all() return redis.call('ZRANGE', home.order, 0, -1) end

-- The members of several lists, each once.
local function union(lists)
  local out, seen = {}, {}
  for i = 1, #lists do
    for _, m in ipairs(lists[i]) do
      if not seen[m] then seen[m] = true; out[#out + 1] = m end
    end
  end
  return out
end

function gather_of.set(c)
  if #c == 2 then return redis.call('SMEMBERS', c[2]) end
  local lists = {}
  for i = 2, #c do lists[i - 1] = redis.call('SMEMBERS', c[i]) end
  return union(lists)
end

function gather_of.range(c) return redis.call('ZRANGEBYSCORE', c[2], c[3], c[4]) end

function gather_of.keys(c)
  local out = {}
  for i = 2, #c do out[i - 1] = c[i] end
  return union({out})
end

gather_of['and'] = function(c)
  local least, at = math.huge, nil
  for i = 2, #c do
    local n = where.size(c[i])
    if n < least then least, at = n, i end
  end
  local out = where.gather(c[at])
  for i = 2, #c do
    if i ~= at and #out > 0 then out = where.keep(c[i], out) end
  end
  return out
end

gather_of['or'] = function(c)
  local lists = {}
  for i = 2, #c do lists[i - 1] = where.gather(c[i]) end
  return union(lists)
end

local function each_chunk(members, call)
  for from = 1, #members, CHUNK do
    local to = math.min(from + CHUNK - 1, #members)
    call(from, to)
  end
end

function test_of.all(_, members)
  local out = {}
  for i = 1, #members do out[i] = true end
  return out
end

-- Asking many small sets for each record costs records x sets: their union is built once instead.
local function union_of(c)
  if not c.union then
    c.union = {}
    for _, member in ipairs(where.gather(c)) do c.union[member] = true end
  end
  return c.union
end

function test_of.set(c, members)
  local out = {}
  if #c > 33 and where.size(c) <= 100000 then
    local union = union_of(c)
    for i = 1, #members do out[i] = union[members[i]] == true end
    return out
  end
  each_chunk(members, function(from, to)
    for k = 2, #c do
      local found = redis.call('SMISMEMBER', c[k], unpack(members, from, to))
      for i = 1, #found do out[from + i - 1] = out[from + i - 1] or found[i] == 1 end
    end
  end)
  return out
end

local function bound(text)
  local open = string.sub(text, 1, 1) == '('
  if open then text = string.sub(text, 2) end
  if text == '-inf' then return -math.huge, open end
  if text == '+inf' or text == 'inf' then return math.huge, open end
  return tonumber(text), open
end

local function score_number(text)
  if text == 'inf' then return math.huge elseif text == '-inf' then return -math.huge end
  return tonumber(text)
end

function test_of.range(c, members)
  local out = {}
  local low, low_open = bound(c[3])
  local high, high_open = bound(c[4])
  each_chunk(members, function(from, to)
    local scores = redis.call('ZMSCORE', c[2], unpack(members, from, to))
    for i = 1, #scores do
      local s = scores[i]
      s = s and (tonumber(s) or score_number(s))
      out[from + i - 1] = s and s >= low and s <= high and not (low_open and s == low) and not (high_open and s == high)
        or false
    end
  end)
  return out
end

-- The stored bytes of a field; nil where there are none, or where the key holds something else than a record.
local function stored_bytes(rk, field)
  local raw = redis.pcall('HGET', rk, field)
  if type(raw) == 'string' then return raw end
end

function test_of.raw(c, members)
  local wanted, missing = {}, false
  for k = 3, #c do
    if c[k] then wanted[c[k]] = true else missing = true end
  end
  local out = {}
  for i = 1, #members do
    local raw = stored_bytes(members[i], c[2])
    if raw then out[i] = wanted[raw] == true else out[i] = missing end
  end
  return out
end

-- The number that a field's bytes stand for, as a double; nil for none.
local function stored_number(raw)
  local head = string.byte(raw, 1)
  if #raw == 9 then
    if head == 0xcb then return (struct.unpack('>d', raw, 2)) end
    if head == 0xcf or head == 0xd3 then -- cmsgpack takes an unsigned one from 2^63 on for a negative one
      local high, low = struct.unpack(head == 0xcf and '>I4I4' or '>i4I4', raw, 2)
      return high * 4294967296 + low
    end
  end
  local ok, value = pcall(cmsgpack.unpack, raw)
  if ok and type(value) == 'table' then value = value.as_encodable end
  if not ok or value == nil or type(value) == 'boolean' or type(value) == 'table' then return nil end
  if type(value) == 'number' then return value end
  value = string.lower(value)
  if value == 'infinity' then return math.huge elseif value == '-infinity' then return -math.huge end
  return tonumber(value)
end

-- -1, 0 or 1: the order of the bytes of two texts of one length.
local function bytes_compared(a, b)
  for i = 1, #b do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y and -1 or 1 end
  end
  return 0
end

local function number_between(raw, c)
  local n = stored_number(raw)
  if n == nil or n ~= n then return false end
  return (not c[4] or n > c[4] or (n == c[4] and not c[5])) and (not c[6] or n < c[6] or (n == c[6] and not c[7]))
end

local function text_between(raw, c)
  local tag, size = c[9], #(c[4] or c[6] or '')
  local text = string.sub(raw, 1, #tag) == tag and packed_text(string.sub(raw, #tag + 1))
  if not text then return false end
  if #text > size then return true end
  text = string.rep('0', size - #text) .. text -- years before 1000 were once written without their zeros
  local low, high = c[4] and bytes_compared(text, c[4]) or 1, c[6] and bytes_compared(text, c[6]) or -1
  return (low > 0 or (low == 0 and not c[5])) and (high < 0 or (high == 0 and not c[7]))
end

-- Test the stored bytes of a field; what `c` says in its place 8 holds for a record without the field.
local function tested_bytes(c, members, between)
  local out = {}
  for i = 1, #members do
    local raw = stored_bytes(members[i], c[2])
    if raw then out[i] = between(raw, c) else out[i] = c[8] end
  end
  return out
end

function test_of.value(c, members)
  return tested_bytes(c, members, c[3] == 'number' and number_between or text_between)
end

function test_of.keys(c, members)
  local wanted, out = {}, {}
  for k = 2, #c do wanted[c[k]] = true end
  for i = 1, #members do out[i] = wanted[members[i]] == true end
  return out
end

test_of['not'] = function(c, members)
  local out = where.test(c[2], members)
  for i = 1, #members do out[i] = not out[i] end
  return out
end

test_of['and'] = function(c, members)
  -- each condition sees only what the ones before it let through
  local out, left, place = {}, {}, {}
  for i = 1, #members do out[i] = true; left[i] = members[i]; place[i] = i end
  for k = 2, #c do
    local found = where.test(c[k], left)
    local next_left, next_place = {}, {}
    for i = 1, #left do
      if found[i] then
        next_left[#next_left + 1] = left[i]
        next_place[#next_place + 1] = place[i]
      else out[place[i]] = false end
    end
    left, place = next_left, next_place
    if #left == 0 then break end
  end
  return out
end

test_of['or'] = function(c, members)
  local out = {}
  for i = 1, #members do out[i] = false end
  for k = 2, #c do
    local found = where.test(c[k], members)
    for i = 1, #members do out[i] = out[i] or found[i] end
  end
  return out
end

function where.test(c, members)
  if #members == 0 then return {} end
  return test_of[c[1]](c, members)
end

-- Most walks test for one value's set: without the list of booleans between.
local function kept_of_set(key, members)
  local out, n = {}, 0
  local found = redis.call('SMISMEMBER', key, unpack(members))
  for i = 1, #members do
    if found[i] == 1 then
      n = n + 1
      out[n] = members[i]
    end
  end
  return out
end

function where.keep(c, members)
  if #c == 2 and c[1] == 'set' and #members > 0 and #members <= CHUNK then return kept_of_set(c[2], members) end
  local found, out = where.test(c, members), {}
  for i = 1, #members do
    if found[i] then out[#out + 1] = members[i] end
  end
  return out
end

-- Records that are due to expire may still be named by the indexes; nil when none is due (the normal case).
function where.due()
  if redis.call('ZCARD', home.expiry) == 0 then return nil end
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  if redis.call('ZCOUNT', home.expiry, '-inf', now) == 0 then return nil end
  return now
end

function where.alive(members)
  local out = {}
  for i = 1, #members do
    if redis.call('EXISTS', members[i]) == 1 then out[#out + 1] = members[i] end
  end
  return out
end

-- What few queries ask stands in functions, which run when one of their ops is first met: a query should not pay for
-- closures that nobody calls.
local near = {} -- filled by lib_where_near
local lazy_ops = {}
function lazy_ops.starts()
LIB_WHERE_TEXT
end
lazy_ops.ends, lazy_ops.contains = lazy_ops.starts, lazy_ops.starts
function lazy_ops.near()
LIB_WHERE_NEAR
end
function lazy_ops.owner()
LIB_WHERE_OWNER
end
function lazy_ops.between()
LIB_WHERE_BETWEEN
end
function lazy_ops.related()
LIB_WHERE_RELATED
end

local lazy = {__index = function(known, op)
  local fill = lazy_ops[op]
  if not fill then return nil end
  for name, same in pairs(lazy_ops) do
    if same == fill then lazy_ops[name] = nil end
  end
  fill()
  return rawget(known, op)
end}
setmetatable(size_of, lazy)
setmetatable(gather_of, lazy)
setmetatable(test_of, lazy)
