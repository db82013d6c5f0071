-- lib_occupancy: where the list of a record's index entries (its occupancy, see lib_record) is kept, and in what form.
--
-- The lists of a model lie in small hashes, $Occ:Model:0, :1 and so on, which Redis keeps as listpacks: what follows the
-- model's name in the record's key -> the list as bytes. A bucket that is full makes the next one in turn split (linear
-- hashing: Litwin, VLDB 1980). The hash $Occ:Model holds the number of `buckets`, and the shapes.
--
-- The first byte says how the list is written:
--   1 to 125   by the shape of that number; the tails follow, packed
--   0          the entries follow, packed
--   127        alone: too long for a listpack, so it lies in the side key rk::$occ, in one of these forms
--   above 143  the packed entries as earlier versions kept them, in the side key
-- Records whose key is too long for a listpack have the side key alone.
--
-- A shape is what the records of a model have in common: a packed list of {slot, kind, base, origins}. An origin is 0 for
-- a part of the entry that stands in the tails, n for one that is the n-th part of the record's key. Tails, one after the
-- other: for each slot its parts of origin 0, and {its number, kept} where kept is not false; for a slot without an
-- entry its number alone. Behind them, as they are, entries that the shape has no slot for.
--
--   stored_occupancy(rk)           its bytes (nil: none), and the list of entries
--   occ_set(rk, entries)           keep this list
--   occ_del(rk)                    keep none
--   occ_read(rk, fresh)            the bytes; fresh = the record is not there yet, so what earlier versions kept is left out
--   occ_decode(rk, blob)           the list, or nil when these bytes are none
--   occ_numbered(rk, shape)        the number of a packed shape, or nil
--   occ_keep(rk, shape, tails, entries)   keep the list, which this packed shape and these packed tails stand for
--   occ_learn(rk, shape)           give a packed shape its number
local occ -- the model whose records are at work
local occ_of = {} -- of the records that were read: {number of the shape, bytes, is there a side key}

local function occupancy_key(rk) return rk .. '::$occ' end

-- What stands for the record in its bucket, or nil for one that has the side key alone; and the bucket.
local function occ_place(rk)
  if not occ or string.sub(rk, 1, #occ.prefix) ~= occ.prefix then
    occ = nil
    local keys = KEYS -- the last one, the sentinel, tells what the model's keys have in common; others do of a second model
    for i = #keys, 1, -1 do
      local key = keys[i]
      local mark = string.find(key, '$Sentinel:', 1, true) or string.find(key, '$Class:', 1, true)
      local colon = mark and string.find(key, ':', mark, true)
      local prefix = mark and string.sub(key, 1, mark - 1) .. string.sub(key, colon + 1) .. ':'
      if prefix and string.sub(rk, 1, #prefix) == prefix then
        occ = {prefix = prefix, state = string.sub(key, 1, mark) .. 'Occ' .. string.sub(key, colon), numbers = {}, shapes = {},
          hashes = {}}
        break
      end
    end
    if not occ then return nil end
  end
  local field = string.sub(rk, #occ.prefix + 1)
  if #field > 64 then return nil end
  local buckets = occ.buckets or tonumber(redis.call('HGET', occ.state, 'buckets') or nil)
  if not buckets then -- no list was kept yet, or the hash was deleted by hand
    buckets = 1
    while redis.call('EXISTS', occ.state .. ':' .. buckets) == 1 do buckets = buckets + 1 end
  end
  occ.buckets = buckets
  if buckets == 1 then return field, occ.state .. ':0' end
  local hash = occ.hashes[field] or tonumber(string.sub(redis.sha1hex(field), 1, 7), 16)
  occ.hashes[field] = hash
  local _, bits = math.frexp(buckets - 1)
  local at = hash % 2 ^ bits
  if at >= buckets then at = hash % 2 ^ (bits - 1) end
  return field, occ.state .. ':' .. at
end

local function occ_numbered(rk, shape)
  if not occ then occ_place(rk) end
  if occ and occ.numbers[shape] == nil then
    occ.numbers[shape] = tonumber(redis.call('HGET', occ.state, shape) or nil) or false
  end
  return occ and occ.numbers[shape] or nil
end

-- What not every save needs is defined when it is needed: a call pays for each function that its script defines.
local occ_more
local function occ_rest()
  if occ_more then return occ_more end
  local more, SHAPES_MOST = {}, 125

  -- Split the bucket whose turn it is.
  function more.split()
    local half = 1
    while half * 2 <= occ.buckets do half = half * 2 end
    local source, target = occ.state .. ':' .. (occ.buckets - half), occ.state .. ':' .. occ.buckets
    if redis.call('EXISTS', target) == 1 then return end -- not ours to write over
    local flat, moved, gone = redis.call('HGETALL', source), {}, {}
    for i = 1, #flat, 2 do
      if tonumber(string.sub(redis.sha1hex(flat[i]), 1, 7), 16) % (2 * half) == occ.buckets then
        gone[#gone + 1] = flat[i]
        moved[#moved + 1] = flat[i]
        moved[#moved + 1] = flat[i + 1]
      end
    end
    for from = 1, #moved, 4000 do redis.call('HSET', target, unpack(moved, from, math.min(from + 3999, #moved))) end
    for from = 1, #gone, 4000 do redis.call('HDEL', source, unpack(gone, from, math.min(from + 3999, #gone))) end
    occ.buckets = occ.buckets + 1
    redis.call('HSET', occ.state, 'buckets', occ.buckets)
  end

  -- The list of a packed one; nil when these bytes are no list of entries.
  local function entries_in(blob)
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

  local function shape_of(number)
    if not occ.shapes[number] then
      local packed = redis.call('HGET', occ.state, '#' .. number)
      occ.shapes[number] = packed and cmsgpack.unpack(packed) or nil
    end
    return occ.shapes[number]
  end

  -- The list that a shape and tails stand for; nil where the tails are too few.
  local function entries_of_tails(shape, tails, rk)
    local entries, at, of_key = {}, 1, nil
    for number = 1, #shape do
      if tails[at] == number then at = at + 1 -- the record has no entry in this slot
      else
        local slot = shape[number]
        local origins, parts, kept = slot[4], {}, false
        for p = 1, #origins do
          if origins[p] == 0 then
            parts[p] = tails[at]
            at = at + 1
          else
            if not of_key then
              of_key = {}
              for part in string.gmatch(string.sub(rk, #occ.prefix + 1) .. ':', '([^:]*):') do of_key[#of_key + 1] = part end
            end
            parts[p] = of_key[origins[p]]
          end
          if type(parts[p]) ~= 'string' then return nil end
        end
        local mark = tails[at]
        if type(mark) == 'table' and mark[1] == number then
          kept = mark[2]
          at = at + 1
        end
        entries[#entries + 1] = {slot[1], slot[2], slot[3], parts, kept}
      end
    end
    for i = at, #tails do entries[#entries + 1] = tails[i] end
    return entries
  end

  function more.decode(rk, blob)
    local number = string.byte(blob, 1) or 0
    if number == 0 then return entries_in(string.sub(blob, 2)) end
    if number > SHAPES_MOST then return entries_in(blob) end
    local shape = occ and shape_of(number)
    local read, tails = pcall(cmsgpack.unpack, string.sub(blob, 2))
    local entries = shape and read and type(tails) == 'table' and entries_of_tails(shape, tails, rk)
    if not entries then return nil end
    for i = 1, #entries do
      if type(entries[i]) ~= 'table' or type(entries[i][4]) ~= 'table' then return nil end
    end
    occ_of[rk] = occ_of[rk] or {}
    occ_of[rk][1] = number
    return entries
  end

  -- The tails that stand for these entries in a shape; nil when it does not fit them.
  local function tails_of(shape, entries, rk)
    local of_slot, of_key, tails = {}, {}, {}
    for part in string.gmatch(string.sub(rk, #occ.prefix + 1) .. ':', '([^:]*):') do of_key[#of_key + 1] = part end
    for i = 1, #entries do of_slot[entries[i][1]] = entries[i] end
    for number = 1, #shape do
      local slot, origins = shape[number], shape[number][4]
      local e = of_slot[slot[1]]
      of_slot[slot[1]] = nil
      if not e then tails[#tails + 1] = number
      else
        if e[2] ~= slot[2] or e[3] ~= slot[3] or #e[4] ~= #origins then return nil end
        for p = 1, #origins do
          if origins[p] == 0 then tails[#tails + 1] = e[4][p]
          elseif e[4][p] ~= of_key[origins[p]] then return nil end
        end
        if e[5] then tails[#tails + 1] = {number, e[5]} end
      end
    end
    for i = 1, #entries do
      if of_slot[entries[i][1]] then tails[#tails + 1] = entries[i] end
    end
    return tails
  end

  -- A list that is too long for a listpack, or whose record's key is.
  -- The bytes of a list.
  function more.bytes(rk, entries)
    occ_place(rk)
    local number, tails = occ_of[rk] and occ_of[rk][1], nil
    if occ and number and shape_of(number) then tails = tails_of(shape_of(number), entries, rk) end
    if occ and not tails then
      for known = 1, math.min(SHAPES_MOST, tonumber(redis.call('HGET', occ.state, 'shapes') or 0)) do
        number, tails = known, shape_of(known) and tails_of(shape_of(known), entries, rk)
        if tails then break end
      end
    end
    if tails then return string.char(number) .. cmsgpack.pack(tails) end
    return '\0' .. cmsgpack.pack(entries)
  end

  function more.learn(shape)
    local number = redis.call('HINCRBY', occ.state, 'shapes', 1)
    if number > SHAPES_MOST then return nil end
    redis.call('HSET', occ.state, shape, number, '#' .. number, shape, 'buckets', occ.buckets or 1)
    occ.numbers[shape] = number
    return number
  end

  -- A bucket has lost a record. With the last one of the model its shapes go as well.
  function more.shrunk(bucket)
    if redis.call('EXISTS', bucket) == 1 then return end
    for at = 0, occ.buckets - 1 do
      if redis.call('EXISTS', occ.state .. ':' .. at) == 1 then return end
    end
    redis.call('DEL', occ.state)
    occ = nil
  end

  occ_more = more
  return more
end

local function occ_decode(rk, blob) return occ_rest().decode(rk, blob) end

local function occ_read(rk, fresh)
  local field, bucket = occ_place(rk)
  local blob = field and redis.call('HGET', bucket, field)
  local aside = not field or blob == '\127'
  if aside or (not blob and not fresh) then
    blob = redis.call('GET', occupancy_key(rk))
    aside = aside or blob ~= false
  end
  occ_of[rk] = {nil, blob or nil, aside}
  return blob or nil
end

local function stored_occupancy(rk)
  local blob = occ_read(rk)
  if not blob then return nil, {} end
  local entries = occ_decode(rk, blob)
  if not entries then
    error({err = 'UNINDEXED the list of what ' .. rk .. ' occupies cannot be read; nothing was written. ' ..
      'Run rebuild_indexes().'})
  end
  return blob, entries
end

local function occ_write(rk, blob)
  local known = occ_of[rk] or {}
  if known[2] == blob and not known[3] then return end
  local field, bucket = occ_place(rk)
  local aside = not field or #blob > 64
  if field and redis.call('HSET', bucket, field, aside and '\127' or blob) == 1
    and redis.call('HLEN', bucket) > 96 then occ_rest().split() end
  if aside then redis.call('SET', occupancy_key(rk), blob)
  elseif known[3] then redis.call('DEL', occupancy_key(rk)) end
  occ_of[rk] = {known[1], blob, aside}
end

local function occ_set(rk, entries) occ_write(rk, occ_rest().bytes(rk, entries)) end

local function occ_learn(rk, shape)
  return occ_numbered(rk, shape) or (occ and occ_rest().learn(shape))
end

local function occ_keep(rk, shape, tails, entries)
  local number = occ_learn(rk, shape)
  if number then occ_write(rk, string.char(number) .. tails) else occ_set(rk, entries) end
end

local function occ_del(rk)
  local field, bucket = occ_place(rk)
  if not occ_of[rk] or occ_of[rk][3] then redis.call('DEL', occupancy_key(rk)) end
  if field and redis.call('HDEL', bucket, field) == 1 then occ_rest().shrunk(bucket) end
  occ_of[rk] = nil
end
