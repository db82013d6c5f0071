-- kind_existence: a Bloom filter of the words of all records, which can forget (popoto.memory.existence).
--
-- kind "ef"  base is P = $EF:{Model}:{field}, the one part is the shape `{m}x{k}`: m bits, k of them a word. `key` = P:{shape}:
--     P:{shape}            string  the bits: one is set while a word of some record falls on it
--     P:{shape}::counts    string  for each bit, how many words fall on it, as a byte; up to 255
--     P:{shape}::more      hash    bit -> how many beyond that
--     P::shapes            hash    shape -> how many bits are set, for the shapes that have some
-- kept: the record's words, 8 bytes each: two hashes of 32 bits, the first one high. A filter of another shape goes on
-- until the last record that was stored under it has been saved again; whoever asks looks into all of them.
local function existence_shape(key)
  local base, m, k = string.match(key, '^(.*):(%d+)x(%d+)$')
  return base, tonumber(m), tonumber(k)
end

-- The bits of a word: double hashing with the cubic term of Dillinger and Manolios (2004). All numbers stay below 2^53.
local function bits_of_word(high, low, m, k)
  local at, step, bits = high % m, low % (m - 1) + 1, {}
  for i = 0, k - 1 do bits[i + 1] = (at + i * step + (i * i * i - i) / 6) % m end
  return bits
end

do
  local STEP = 1500 -- unpack() fails from 8,000 values

  local function words_in(packed)
    local words = {}
    for at = 1, #packed, 8 do words[string.sub(packed, at, at + 7)] = true end
    return words
  end

  local function bits_of(words, m, k)
    local all = {}
    for word in pairs(words) do
      local high, low = struct.unpack('>I4I4', word)
      local bits = bits_of_word(high, low, m, k)
      for i = 1, k do all[#all + 1] = bits[i] end
    end
    return all
  end

  local function counted(key, bits, by)
    local out = {}
    for from = 1, #bits, STEP do
      local call, n = {'BITFIELD', key, 'OVERFLOW', 'FAIL'}, 4
      for i = from, math.min(from + STEP - 1, #bits) do
        call[n + 1], call[n + 2], call[n + 3], call[n + 4] = 'INCRBY', 'u8', bits[i] * 8, by
        n = n + 4
      end
      local found = redis.call(unpack(call))
      for i = 1, #found do out[#out + 1] = found[i] end
    end
    return out
  end

  local function flip(key, bits, value)
    for from = 1, #bits, STEP do
      local call, n = {'BITFIELD', key}, 2
      for i = from, math.min(from + STEP - 1, #bits) do
        call[n + 1], call[n + 2], call[n + 3], call[n + 4] = 'SET', 'u1', bits[i], value
        n = n + 4
      end
      redis.call(unpack(call))
    end
  end

  local function shift_shape(key, by)
    local base = existence_shape(key)
    local shapes, shape = base .. '::shapes', string.sub(key, #base + 2)
    if by ~= 0 and redis.call('HINCRBY', shapes, shape, by) <= 0 then
      redis.call('HDEL', shapes, shape)
      redis.call('DEL', key, key .. '::counts', key .. '::more')
    end
  end

  local function add(key, words)
    local _, m, k = existence_shape(key)
    local bits, set = bits_of(words, m, k), {}
    local counts = counted(key .. '::counts', bits, 1)
    for i = 1, #bits do
      if not counts[i] then redis.call('HINCRBY', key .. '::more', bits[i], 1)
      elseif counts[i] == 1 then set[#set + 1] = bits[i] end
    end
    flip(key, set, 1)
    shift_shape(key, #set)
  end

  local function remove(key, words)
    local _, m, k = existence_shape(key)
    local bits, plain, clear = bits_of(words, m, k), {}, {}
    local more = key .. '::more'
    local crowded = redis.call('EXISTS', more) == 1
    for i = 1, #bits do
      if crowded and redis.call('HEXISTS', more, bits[i]) == 1 then
        if redis.call('HINCRBY', more, bits[i], -1) == 0 then redis.call('HDEL', more, bits[i]) end
      else plain[#plain + 1] = bits[i] end
    end
    local counts = counted(key .. '::counts', plain, -1)
    for i = 1, #plain do
      if counts[i] == 0 then clear[#clear + 1] = plain[i] end
    end
    flip(key, clear, 0)
    shift_shape(key, -#clear)
  end

  kinds.ef = {
    probe = function(e, key)
      return wrong_type(key, 'string') or wrong_type(key .. '::counts', 'string') or wrong_type(key .. '::more', 'hash')
        or wrong_type(e[3] .. '::shapes', 'hash')
    end,
    check = function() end,
    put = function(e, key, rk, _, old, old_key, old_rk)
      local wanted = words_in(e[5])
      if old and old_key == key and old_rk == rk then
        if old[5] == e[5] then return end
        local stored = words_in(old[5])
        for word in pairs(stored) do
          if wanted[word] then stored[word], wanted[word] = nil, nil end
        end
        add(key, wanted)
        remove(key, stored)
      else
        add(key, wanted)
      end
    end,
    drop = function(e, key) remove(key, words_in(e[5])) end,
    owner = function() return nil end, -- the counts are those of all records together
    places = function() return {} end,
  }
end
