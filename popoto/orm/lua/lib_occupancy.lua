-- lib_occupancy: how it is kept what a record occupies (its entries, see lib_record).
--
-- A record's list of entries is kept in one of two ways:
--   listed    the string rk::$occ holds it, packed. It outlives the record.
--   implied   nothing is kept for the record. Its entries follow from its key and from the texts in its hash, and the string
--             $Order:Model::shapes says how: it holds the model's shapes, one behind the other, each a packed list of
--             {slot, kind, base, origin}. origin is a list of numbers where the parts of the entry are parts of the
--             record's key (-1 = the last one), or the field whose text is the only part.
-- Implied is only what fits a shape, and what never expires: with a TTL, the hash that tells the texts would go first. No
-- shape is forgotten while the model has records, so an implied list is among what the shapes name; and of that, what the
-- indexes have is true. Where the hash leads to no entry, because another program has changed or deleted it, the entry is
-- searched for among the texts of its field.
--
--   stored_occupancy(rk, loosely)   the list: nil, {} where none is known; else its bytes ('' = implied) and the list.
--                                   loosely: an implied one may name places where the record is not
--   occ_set(rk, entries)            keep this list, listed
--   occ_del(rk)                     keep none
--   forget_shapes(class, order)     once records were removed
--   implied()                       a table of functions for what is implied
local function occupancy_key(rk) return rk .. '::$occ' end

local function shapes_key(order) return order .. '::shapes' end

local function occ_set(rk, entries) redis.call('SET', occupancy_key(rk), cmsgpack.pack(entries)) end

local function occ_del(rk) redis.call('DEL', occupancy_key(rk)) end

-- Where a model has no record left, its shapes go as well.
local function forget_shapes(class, order)
  if redis.call('EXISTS', class, order) == 0 then redis.call('DEL', shapes_key(order)) end
end

-- The text that these msgpack bytes stand for, or nil.
local function text_in(bytes)
  local first = bytes and string.byte(bytes) or 0
  if first >= 160 and first < 192 then return string.sub(bytes, 2) end
  if first == 217 then return string.sub(bytes, 3) elseif first == 218 then return string.sub(bytes, 4)
  elseif first == 219 then return string.sub(bytes, 6) end
end

-- What only some calls need is defined when it is needed: a call pays for each function that its script defines.
local implied_functions
local function implied()
  if implied_functions then return implied_functions end
  local more = {}
  implied_functions = more

  -- The class set and the order of the record's model, found by the keys of the call: the last one, the sentinel, tells how
  -- those of the model begin; others tell it of a second model. nil where none does.
  local declared, known_start, known_home = KEYS, nil, nil
  function more.home_of(rk)
    if known_start and string.sub(rk, 1, #known_start) == known_start then return known_home end
    for i = #declared, 1, -1 do
      local at, to = string.find(declared[i], '$Sentinel:', 1, true)
      if not at then at, to = string.find(declared[i], '$Class:', 1, true) end
      if at then
        local front, model = string.sub(declared[i], 1, at - 1), string.sub(declared[i], to + 1)
        if string.sub(rk, 1, #front + #model + 1) == front .. model .. ':' then
          known_start = front .. model .. ':'
          known_home = {class = front .. '$Class:' .. model, order = front .. '$Order:' .. model}
          return known_home
        end
      end
    end
  end

  -- Is the record at the place of an entry? Yes, where another type holds the place: whoever writes there will refuse.
  local function lies_at(kind, key, rk)
    local found = redis.pcall(kind == 'z' and 'ZSCORE' or 'SISMEMBER', key, rk)
    return found and found ~= 0
  end

  -- The texts of a field under which the record is listed, but for one. A record that has its hash is not searched for
  -- among more than `most`, nor are all records of one call among more than five times as many: what it occupies then
  -- counts as unknown.
  local searched = 0
  local function listed_texts(base, rk, but, most)
    local found, list = {}, base .. '::values'
    local size = redis.pcall('ZCARD', list)
    if type(size) ~= 'number' then return found end
    if most then searched = searched + size end
    if most and (size > most or searched > 5 * most) then
      error({err = 'UNINDEXED what ' .. rk .. ' occupies is unknown: a value was not changed by the model; nothing was ' ..
        'written. Run rebuild_indexes().'})
    end
    for from = 0, size - 1, 1000 do
      local texts = redis.call('ZRANGE', list, from, from + 999)
      for i = 1, #texts do
        if texts[i] ~= but and redis.pcall('SISMEMBER', base .. ':' .. texts[i], rk) == 1 then found[#found + 1] = texts[i] end
      end
    end
    return found
  end

  -- The slots of all shapes, each once: {slot, kind, base, origin, true where all shapes have it}.
  local known_shapes, known_slots, known_count
  local function slots_of(shapes)
    if known_shapes == shapes then return known_slots, known_count end
    local lists = {cmsgpack.unpack(shapes)}
    local slots, seen, at = {}, {}, {}
    for s = 1, #lists do
      for i = 1, #lists[s] do
        local slot = lists[s][i]
        local name = cmsgpack.pack(slot)
        if not at[name] then
          slots[#slots + 1] = slot
          at[name] = slot
        end
        seen[name] = (seen[name] or 0) + 1
        at[name][5] = seen[name] == #lists
      end
    end
    known_shapes, known_slots, known_count = shapes, slots, #lists
    return slots, #lists
  end

  local function parts_of(rk)
    local parts = {}
    for part in string.gmatch(rk .. ':', '([^:]*):') do parts[#parts + 1] = part end
    return parts
  end

  -- The implied list of a record.
  function more.entries(rk, exists, shapes, loosely)
    local entries, parts, slots, count = {}, parts_of(rk), slots_of(shapes)
    loosely = loosely and count == 1 and exists
    for i = 1, #slots do
      local slot, kind, base, origin, everywhere = unpack(slots[i], 1, 5)
      if type(origin) == 'string' then
        local text = exists and text_in(redis.call('HGET', rk, origin))
        local found
        if text and lies_at(kind, base .. ':' .. text, rk) then found = {text}
        elseif not exists then found = listed_texts(base, rk)
        elseif everywhere then found = listed_texts(base, rk, nil, 1000) -- else it may be older than the slot
        else found = {} end
        for t = 1, #found do entries[#entries + 1] = {slot, kind, base, {found[t]}, false} end
      else
        local own, key = {}, base
        for p = 1, #origin do
          own[p] = parts[#parts + 1 + origin[p]]
          key = key .. ':' .. own[p]
        end
        if loosely or lies_at(kind, key, rk) then entries[#entries + 1] = {slot, kind, base, own, false} end
      end
    end
    return entries
  end

  -- Of a partial save that fits the model's only shape: what the stored record occupies of the slots that the plan names,
  -- as its key and its hash tell.
  function more.named_entries(rk, plan, entries, shapes)
    local parts, slots, stored, text_of, named = parts_of(rk), slots_of(shapes), {}, {}, {}
    for i = 1, #plan.texts, 2 do
      text_of[entries[plan.texts[i]][1]] = text_in(redis.call('HGET', rk, plan.texts[i + 1])) or ''
    end
    for i = 1, #entries do named[entries[i][1]] = true end
    for i = 1, #plan.dropped do named[plan.dropped[i]] = true end
    for i = 1, #slots do
      local slot, kind, base, origin = unpack(slots[i], 1, 4)
      if named[slot] then
        local own = {text_of[slot]}
        for p = 1, type(origin) == 'table' and #origin or 0 do own[p] = parts[#parts + 1 + origin[p]] end
        stored[#stored + 1] = {slot, kind, base, own, false}
      end
    end
    return stored
  end

  -- The record was not where its hash had it: take it out of where it is.
  function more.take_out(e, rk)
    local texts = listed_texts(e[3], rk, e[4][1])
    for i = 1, #texts do
      local other = {e[1], e[2], e[3], {texts[i]}, false}
      kinds[e[2]].drop(other, e[3] .. ':' .. texts[i], rk)
    end
  end

  -- The record's hash is gone, and nothing tells what it occupied but the indexes: remove all that is there.
  function more.drop_lost(rk, shapes)
    local entries = more.entries(rk, false, shapes)
    for i = 1, #entries do
      local e = entries[i]
      local key = e[3]
      for p = 1, #e[4] do key = key .. ':' .. e[4][p] end
      if not kinds[e[2]].probe(e, key) then kinds[e[2]].drop(e, key, rk) end
    end
  end

  -- The model has this shape from now on. (What the call has read of the shapes may be old: another record of the batch
  -- may have brought it.)
  function more.learn(order, shape)
    local shapes = redis.call('GET', shapes_key(order))
    if shapes == shape then return end
    local lists = shapes and {cmsgpack.unpack(shapes)} or {}
    for i = 1, #lists do
      if cmsgpack.pack(lists[i]) == shape then return end
    end
    redis.call('APPEND', shapes_key(order), shape)
  end

  return more
end

-- The entries of a packed occupancy; nil when these bytes are no list of entries.
local function read_occupancy(blob)
  local unpacked = {pcall(cmsgpack.unpack, blob)}
  local entries = unpacked[2]
  if not unpacked[1] or #unpacked ~= 2 or type(entries) ~= 'table' then return nil end
  if #entries == 0 and next(entries) ~= nil then return nil end
  for i = 1, #entries do
    local e = entries[i]
    if type(e) ~= 'table' or type(e[1]) ~= 'string' or type(e[2]) ~= 'string' or type(e[3]) ~= 'string'
      or type(e[4]) ~= 'table' then return nil end
    for p = 1, #e[4] do
      if type(e[4][p]) ~= 'string' then return nil end
    end
  end
  return entries
end

local function stored_occupancy(rk, loosely)
  local blob = redis.pcall('GET', occupancy_key(rk))
  if type(blob) == 'table' then error({err = wrong_type(occupancy_key(rk), 'string')}) end
  if blob then
    local entries = read_occupancy(blob)
    if not entries then
      error({err = 'UNINDEXED the list of what ' .. rk .. ' occupies cannot be read; nothing was written. ' ..
        'Run rebuild_indexes().'})
    end
    return blob, entries
  end
  local model = implied().home_of(rk)
  local shapes = model and redis.call('GET', shapes_key(model.order))
  if not shapes then return nil, {} end
  local held = redis.call('TYPE', rk).ok
  if held ~= 'hash' and (held ~= 'none' or redis.call('SISMEMBER', model.class, rk) == 0) then return nil, {} end
  return '', implied().entries(rk, held == 'hash', shapes, loosely)
end
