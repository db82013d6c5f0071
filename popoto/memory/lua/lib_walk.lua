-- lib_walk: walking an ordered set from one end, in chunks, and again from there in a later call.
--
-- score_number(text)        a score as the server writes it
-- looked_up(key, members)   their scores, false for one that the set does not hold
-- walk_of(key, ascending, at, first, last)   returns a table. Descending: highest score first, equal ones in descending
--                         name. Of a part of the set only: from the rank `first`, before the rank `last`.
--   text, score, member     the next one, which is not taken yet; `done` when there is none
--   left                    how many are not taken yet
--   taken                   how many were, in this call
--   take(count)             the next ones: list of members, list of score texts
--   names(count)            the next ones: list of members
--   tied()                  how many of those that are left have the score of the next one
--   beyond()                the nearest score behind `score` that differs from it, or nil
--   ahead(depth)            the score `depth` places further on (of the last one where the set ends before)
-- `at` {text, member} is the next one of an earlier call; the walk goes on at its place even if it is gone.
local function score_number(text)
  local number = tonumber(text)
  if number then return number end -- some C libraries read 'inf', others do not
  return text == 'inf' and math.huge or -math.huge
end

-- The scores of these members; false for one that the set does not hold.
local function looked_up(key, members)
  local out = {}
  for from = 1, #members, 4000 do
    local found = redis.call('ZMSCORE', key, unpack(members, from, math.min(from + 3999, #members)))
    for i = 1, #found do
      local text = found[i]
      out[from + i - 1] = text and (tonumber(text) or score_number(text))
    end
  end
  return out
end

-- How many members come before the place of (text, name) in ascending order.
local function count_before(key, text, name)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. text)
  local high = low + redis.call('ZCOUNT', key, text, text)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if name_before(redis.call('ZRANGE', key, middle, middle)[1], name) then low = middle + 1 else high = middle end
  end
  return low
end

local function walk_of(key, ascending, at, first, last)
  local range = ascending and 'ZRANGE' or 'ZREVRANGE'
  local size = redis.call('ZCARD', key)
  local rank = first or 0
  local walk = {key = key, ascending = ascending, taken = 0}
  if at then
    rank = count_before(key, at[1], at[2])
    if not ascending then
      local there = redis.call('ZRANGE', key, rank, rank)[1]
      rank = size - rank - (there == at[2] and redis.call('ZSCORE', key, there) == at[1] and 1 or 0)
    end
  end

  if last then size = math.min(size, last) end

  local function stand(text, member)
    if rank >= size then text, member = nil, nil end
    walk.text, walk.member = text, member
    walk.score = text and score_number(text)
    walk.left = math.max(0, size - rank)
    walk.done = not text
    walk.next_known = nil
  end

  function walk.take(count)
    count = math.min(count, size - rank)
    local flat = redis.call(range, key, rank, rank + count, 'WITHSCORES')
    local members, texts = {}, {}
    for i = 1, math.min(count, #flat / 2) do
      members[i], texts[i] = flat[2 * i - 1], flat[2 * i]
    end
    rank = rank + #members
    walk.taken = walk.taken + #members
    stand(flat[2 * count + 2], flat[2 * count + 1])
    return members, texts
  end

  function walk.names(count)
    count = math.min(count, size - rank)
    local members = redis.call(range, key, rank, rank + count)
    local following = members[count + 1]
    members[count + 1] = nil
    rank = rank + #members
    walk.taken = walk.taken + #members
    stand(following and redis.call('ZSCORE', key, following), following)
    return members
  end

  function walk.beyond()
    if walk.next_known == nil then
      local found
      if ascending then
        found = redis.call('ZRANGEBYSCORE', key, '(' .. walk.text, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      else
        found = redis.call('ZREVRANGEBYSCORE', key, '(' .. walk.text, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
      end
      walk.next_known = found[2] and score_number(found[2]) or false
    end
    return walk.next_known or nil
  end

  function walk.tied()
    local low, high = walk.text, '+inf'
    if ascending then low, high = '-inf', walk.text end
    return redis.call('ZCOUNT', key, low, high) - rank
  end

  function walk.ahead(depth)
    local place = math.min(rank + depth, size - 1)
    return score_number(redis.call(range, key, place, place, 'WITHSCORES')[2])
  end

  local nearest = redis.call(range, key, rank, rank, 'WITHSCORES')
  stand(nearest[2], nearest[1])
  return walk
end
