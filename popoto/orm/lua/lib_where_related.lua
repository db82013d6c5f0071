-- lib_where_related: the op of lib_where for a condition on the record that a relationship points to.
--
--   {'related', base, field, front, inner, class, order, expiry}
--     base    index key of the relationship without its last part: the set base:local names who points to a record
--     field   the relationship in the hash: the local key of the related record, as a packed str
--     front   what stands before a local key in the related model's keys (namespace)
--     inner   condition on the related records
--     class, order, expiry   the related model's own keys, which are `home` while `inner` is asked
--
-- A related record that is gone, or has expired, satisfies nothing. What was found out is remembered in the condition:
-- c.few, c.satisfied (local key -> does it satisfy `inner`), c.size.
local FEW_RELATED = 1000 -- related records whose sets are asked one by one

local function asking_related(c, ask)
  local own = home
  home = {class = c[6], order = c[7], expiry = c[8]}
  local answer = ask()
  home = own
  return answer
end

local function local_key(c, rk) return string.sub(rk, #c[4] + 1) end

-- The related records that satisfy the condition, where an index knows that they are few; else false.
local function few_related(c)
  if c.few ~= nil then return c.few end
  c.satisfied = {}
  c.few = asking_related(c, function()
    return where.size(c[5]) <= FEW_RELATED and where.alive(where.gather(c[5]))
  end)
  for i = 1, c.few and #c.few or 0 do c.satisfied[local_key(c, c.few[i])] = true end
  return c.few
end

local function pointing(c, rk) return c[2] .. ':' .. local_key(c, rk) end

function size_of.related(c)
  local few = few_related(c)
  if not few then return nil end
  if not c.size then
    c.size = 0
    for i = 1, #few do c.size = c.size + redis.call('SCARD', pointing(c, few[i])) end
  end
  return c.size
end

function gather_of.related(c)
  local lists = {}
  for i, rk in ipairs(few_related(c)) do lists[i] = redis.call('SMEMBERS', pointing(c, rk)) end
  return union(lists)
end

function test_of.related(c, members)
  local few = few_related(c)
  local keys, asked = {}, {}
  for i = 1, #members do
    local key = packed_text(stored_bytes(members[i], c[3])) or false
    keys[i] = key
    if key and not few and c.satisfied[key] == nil then
      c.satisfied[key] = false
      asked[#asked + 1] = c[4] .. key
    end
  end
  if #asked > 0 then
    local found = asking_related(c, function() return where.keep(c[5], where.alive(asked)) end)
    for i = 1, #found do c.satisfied[local_key(c, found[i])] = true end
  end
  local out = {}
  for i = 1, #members do out[i] = keys[i] ~= false and c.satisfied[keys[i]] == true end
  return out
end
