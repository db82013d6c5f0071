-- might_exist: which of some lists of words have one that some record may hold (kind_existence).
--
-- KEYS[1]  -       sentinel of the filter's hash tag, never written
-- ARGV[1]  string  P, the base of the filter
-- ARGV[2]  bytes   packed list: for each question its words, 8 bytes each in one string
--
-- returns  {answers, shapes}: a string of 1 and 0, one for each question; a flat list: shape, bits set in it...
--          Where P is a key itself, somebody else's filter is in the way: {false, {}}
-- errors   none of its own
-- cost     O(words * bits a word)
local base = ARGV[1]
if redis.call('EXISTS', base) == 1 then return {false, {}} end
local questions = cmsgpack.unpack(ARGV[2])
local shapes = redis.call('HGETALL', base .. '::shapes')
local filters = {}
for i = 1, #shapes, 2 do
  local key = base .. ':' .. shapes[i]
  local _, m, k = existence_shape(key)
  filters[#filters + 1] = {key, m, k}
end

local function holds(filter, high, low)
  local bits = bits_of_word(high, low, filter[2], filter[3])
  for i = 1, #bits do
    if redis.call('GETBIT', filter[1], bits[i]) == 0 then return false end
  end
  return true
end

local function any(words)
  for at = 1, #words, 8 do
    local high, low = struct.unpack('>I4I4', words, at)
    for f = 1, #filters do
      if holds(filters[f], high, low) then return true end
    end
  end
  return false
end

local answers = {}
for i = 1, #questions do answers[i] = any(questions[i]) and '1' or '0' end
return {table.concat(answers), shapes}
