-- lib_occupancy: where the list of a record's index entries (its occupancy, see lib_record) is kept, and in what form.
--
-- The lists of a model lie in small hashes, $Occ:Model:0, :1 and so on, which Redis keeps as listpacks: what follows the
-- model's name in the record's key -> the list as bytes. There is a bucket for each 64 records; they are split one at an
-- insert (linear hashing: Litwin, VLDB 1980). The hash $Occ:Model holds `n` records, `buckets`, and the shapes.
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
-- other: for each slot its parts of origin 0, then true or {kept} where kept is not false; for a slot without an entry its
-- number. Behind them, as they are, entries that the shape has no slot for.
--
--   stored_occupancy(rk)           its bytes (nil: none), and the list of entries
--   occ_set(rk, entries)           keep this list
--   occ_del(rk)                    keep none
--   occ_read(rk, fresh)            the bytes; fresh = the record is not there yet, so what earlier versions kept is left out
--   occ_decode(rk, blob)           the list, or nil when these bytes are none
--   occ_numbered(rk, shape)        the number of a packed shape, or nil
--   occ_keep(rk, shape, tails)     keep the list of these packed tails
local LISTPACK_MOST, RECORDS_A_BUCKET, SHAPES_MOST = 64, 64, 125
local IN_SIDE_KEY = '\127'
local occ -- the model whose records are at work
local occ_number_of, occ_bytes_of, occ_has_side = {}, {}, {} -- of the records that were read

local function occupancy_key(rk) return rk .. '::$occ' end

local function occ_span()
  occ.span = 1
  while occ.span < occ.buckets do occ.span = occ.span * 2 end
end

-- What stands for the record in its bucket; nil for one that has the side key alone.
local function occ_field(rk)
  if not occ or string.sub(rk, 1, #occ.prefix) ~= occ.prefix then
    occ = nil
    for _, key in ipairs(KEYS) do -- any key of the model's own tells what its record keys begin with
      local front, model = string.match(key, '^(.*)%$Sentinel:([^:]*)$')
      if not front then front, model = string.match(key, '^(.*)%$Class:([^:]*)$') end
      if front and string.sub(rk, 1, #front + #model + 1) == front .. model .. ':' then
        occ = {prefix = front .. model .. ':', state = front .. '$Occ:' .. model, numbers = {}, shapes = {}}
        break
      end
    end
    if not occ then return nil end
  end
  local field = string.sub(rk, #occ.prefix + 1)
  return #field <= LISTPACK_MOST and field or nil
end

local function occ_hash(field) return tonumber(string.sub(redis.sha1hex(field), 1, 7), 16) end

local function occ_bucket(field)
  if not occ.buckets then
    occ.buckets = tonumber(redis.call('HGET', occ.state, 'buckets') or 1)
    occ_span()
  end
  local at = 0
  if occ.buckets > 1 then
    local hash = occ_hash(field)
    at = hash % occ.span
    if at >= occ.buckets then at = hash % (occ.span / 2) end
  end
  return occ.state .. ':' .. at
end

local function occ_split()
  local half = occ.span == occ.buckets and occ.span or occ.span / 2
  local source, target = occ.state .. ':' .. (occ.buckets - half), occ.state .. ':' .. occ.buckets
  if redis.call('EXISTS', target) == 1 then return end -- not ours to write over
  local flat, moved, gone = redis.call('HGETALL', source), {}, {}
  for i = 1, #flat, 2 do
    if occ_hash(flat[i]) % (2 * half) == occ.buckets then
      gone[#gone + 1] = flat[i]
      moved[#moved + 1] = flat[i]
      moved[#moved + 1] = flat[i + 1]
    end
  end
  for from = 1, #moved, 4000 do redis.call('HSET', target, unpack(moved, from, math.min(from + 3999, #moved))) end
  for from = 1, #gone, 4000 do redis.call('HDEL', source, unpack(gone, from, math.min(from + 3999, #gone))) end
  occ.buckets = occ.buckets + 1
  redis.call('HSET', occ.state, 'buckets', occ.buckets)
  occ_span()
end

-- The number of a packed shape, nil where the server has not met it.
local function occ_numbered(rk, shape)
  if not occ_field(rk) and not occ then return nil end
  if occ.numbers[shape] == nil then
    local known = redis.call('HMGET', occ.state, 'buckets', shape)
    if not occ.buckets then
      occ.buckets = tonumber(known[1] or 1)
      occ_span()
    end
    occ.numbers[shape] = tonumber(known[2] or nil) or false
  end
  return occ.numbers[shape] or nil
end

local function occ_shape(number)
  if not occ.shapes[number] then
    local packed = redis.call('HGET', occ.state, '#' .. number)
    occ.shapes[number] = packed and cmsgpack.unpack(packed) or nil
  end
  return occ.shapes[number]
end

local function occ_learn(rk, shape)
  local number = occ_numbered(rk, shape)
  if number or not occ then return number end
  number = redis.call('HINCRBY', occ.state, 'shapes', 1)
  if number > SHAPES_MOST then return nil end
  redis.call('HSET', occ.state, shape, number, '#' .. number, shape)
  occ.numbers[shape] = number
  return number
end

local function key_parts(rk)
  local parts = {}
  for part in string.gmatch(string.sub(rk, #occ.prefix + 1) .. ':', '([^:]*):') do parts[#parts + 1] = part end
  return parts
end

-- The entries that a shape and tails stand for; nil where the tails are too few.
local function occ_entries(shape, tails, rk)
  local entries, at, of_key = {}, 1, nil
  for number = 1, #shape do
    if tails[at] == number then at = at + 1 -- the record has no entry in this slot
    else
      local slot, origins, parts, kept = shape[number], shape[number][4], {}, false
      for p = 1, #origins do
        if origins[p] == 0 then
          parts[p] = tails[at]
          at = at + 1
        else
          of_key = of_key or key_parts(rk)
          parts[p] = of_key[origins[p]]
        end
        if type(parts[p]) ~= 'string' then return nil end
      end
      local mark = tails[at]
      if mark == true or (type(mark) == 'table' and #mark == 1) then
        kept = mark == true or mark[1]
        at = at + 1
      end
      entries[#entries + 1] = {slot[1], slot[2], slot[3], parts, kept}
    end
  end
  for i = at, #tails do entries[#entries + 1] = tails[i] end
  return entries
end

-- The tails that stand for these entries in a shape; nil when it does not fit them.
local function occ_tails(shape, entries, rk)
  local of_slot, of_key, tails = {}, key_parts(rk), {}
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
      if e[5] then tails[#tails + 1] = e[5] == true or {e[5]} end
    end
  end
  for i = 1, #entries do
    if of_slot[entries[i][1]] then tails[#tails + 1] = entries[i] end
  end
  return tails
end

-- The list of a packed one; nil when these bytes are no list of entries.
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

local function occ_decode(rk, blob)
  local number = string.byte(blob, 1) or 0
  if number == 0 then return read_occupancy(string.sub(blob, 2)) end
  if number > SHAPES_MOST then return read_occupancy(blob) end
  occ_field(rk)
  local shape = occ and occ_shape(number)
  local read, tails = pcall(cmsgpack.unpack, string.sub(blob, 2))
  if not shape or not read or type(tails) ~= 'table' then return nil end
  local entries = occ_entries(shape, tails, rk)
  for i = 1, #(entries or {}) do
    if type(entries[i]) ~= 'table' or type(entries[i][4]) ~= 'table' then return nil end
  end
  occ_number_of[rk] = number
  return entries
end

local function occ_read(rk, fresh)
  local field = occ_field(rk)
  local blob = field and redis.call('HGET', occ_bucket(field), field)
  occ_has_side[rk] = not field or blob == IN_SIDE_KEY
  if occ_has_side[rk] or (not blob and not fresh) then
    blob = redis.call('GET', occupancy_key(rk))
    occ_has_side[rk] = occ_has_side[rk] or blob ~= false
  end
  occ_bytes_of[rk] = blob or nil
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
  if occ_bytes_of[rk] == blob and not occ_has_side[rk] then return end
  local field = occ_field(rk)
  local aside = not field or #blob > LISTPACK_MOST
  if field and redis.call('HSET', occ_bucket(field), field, aside and IN_SIDE_KEY or blob) == 1 then
    if redis.call('HINCRBY', occ.state, 'n', 1) > RECORDS_A_BUCKET * occ.buckets then occ_split() end
  end
  if aside then redis.call('SET', occupancy_key(rk), blob)
  elseif occ_has_side[rk] then redis.call('DEL', occupancy_key(rk)) end
  occ_has_side[rk], occ_bytes_of[rk] = aside, blob
end

local function occ_set(rk, entries)
  local number, tails = occ_number_of[rk], nil
  occ_field(rk)
  if occ and number and occ_shape(number) then tails = occ_tails(occ_shape(number), entries, rk) end
  if occ and not tails then
    for known = 1, math.min(SHAPES_MOST, tonumber(redis.call('HGET', occ.state, 'shapes') or 0)) do
      number, tails = known, occ_shape(known) and occ_tails(occ_shape(known), entries, rk)
      if tails then break end
    end
  end
  if tails then occ_write(rk, string.char(number) .. cmsgpack.pack(tails))
  else occ_write(rk, '\0' .. cmsgpack.pack(entries)) end
end

local function occ_keep(rk, shape, tails)
  local number = occ_learn(rk, shape)
  if number then
    occ_number_of[rk] = number
    occ_write(rk, string.char(number) .. tails)
  else occ_set(rk, occ_entries(cmsgpack.unpack(shape), cmsgpack.unpack(tails), rk)) end
end

local function occ_del(rk)
  local field = occ_field(rk)
  if field and redis.call('HDEL', occ_bucket(field), field) == 1 and redis.call('HINCRBY', occ.state, 'n', -1) <= 0 then
    redis.call('DEL', occ.state)
    occ = nil
  end
  if occ_has_side[rk] ~= false then redis.call('DEL', occupancy_key(rk)) end
  occ_number_of[rk], occ_bytes_of[rk], occ_has_side[rk] = nil, nil, nil
end
