-- kind_sketch: how often words were saved, in a count-min sketch (popoto.memory.frequency).
--
-- kind "fs"  `key` is $FS:{Model}:{field}, a hash: row:column -> count. payload: {width, depth, words, 8 bytes each in one
--            string: two hashes of 32 bits, the first one high}. Each save that brings a payload adds 1 for each word; nothing
--            is ever taken out.
-- Conservative update (Estan and Varghese 2002): only the rows that hold the least for a word are raised.
local function sketch_cells(words, at, width, depth)
  local high, low = struct.unpack('>I4I4', words, at)
  local cells = {}
  for row = 0, depth - 1 do cells[row + 1] = row .. ':' .. string.format('%.0f', (high + row * low) % width) end
  return cells
end

kinds.fs = {
  probe = function(_, key) return wrong_type(key, 'hash') end,
  check = function() end,
  put = function(_, key, _, payload)
    if payload == nil then return end
    local width, depth, words = payload[1], payload[2], payload[3]
    for at = 1, #words, 8 do
      local cells = sketch_cells(words, at, width, depth)
      local counts, least = redis.call('HMGET', key, unpack(cells)), math.huge
      for i = 1, depth do
        counts[i] = tonumber(counts[i] or 0)
        least = math.min(least, counts[i])
      end
      for i = 1, depth do
        if counts[i] <= least then redis.call('HSET', key, cells[i], string.format('%.0f', least + 1)) end
      end
    end
  end,
  drop = function() end,
  owner = function() return nil end, -- the counts are those of all records together
  places = function() return {} end,
}
