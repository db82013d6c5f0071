-- lib_walk: the records that satisfy a filter, in an order, cut; what is large goes in slices.
--
-- walk.members(q)   the records, and where the next slice begins: {score, member, offset left, limit left}, or false
-- walk.count(q)     how many, and the same
-- walk.plan(q)      {'gather' or 'walk', members of the smallest index set, members of the stretch, members expected to be
--                   visited by a walk}; a number that no index knows is -1
--
-- q: where, order, low, high, desc, offset, limit, after, gather, slice, rows, capped: see select.lua.
-- Both ways are exact; which one runs is a matter of cost. Gather: the smallest index set is read, the other conditions are
-- tested, what is left is sorted by rank. Walk: the order is read from its end, each chunk is tested, until enough is found;
-- it changes over to gather when that would have been less after all.
local walk = {}

local function matching(q, members)
  if q.where[1] ~= 'all' then members = where.keep(q.where, members) end
  if walk.due == nil then walk.due = where.due() or false end
  if walk.due then members = where.alive(members) end
  return members
end

-- The rank behind a place in the order. Positions are (score, member), for ranks shift between calls.
local function rank_behind(q, score, member)
  local rank = redis.call('ZRANK', q.order, member)
  if rank and redis.call('ZSCORE', q.order, member) == score then return q.desc and rank - 1 or rank + 1 end
  -- the member is gone or moved: the first one behind its old place, by binary search among equal scores
  local low = redis.call('ZCOUNT', q.order, '-inf', '(' .. score)
  local high = redis.call('ZCOUNT', q.order, '-inf', score)
  if redis.call('ZCARD', q.order) == high - low then
    low = low + redis.call('ZLEXCOUNT', q.order, '-', '[' .. member)
  else
    while low < high do
      local middle = math.floor((low + high) / 2)
      if bytes_ordered(redis.call('ZRANGE', q.order, middle, middle)[1], member) then low = middle + 1
      else high = middle end
    end
  end
  return q.desc and low - 1 or low
end

-- The first and last rank of the scores between two ends.
local function ranks_between(zset, low, high)
  local below = string.sub(low, 1, 1) == '(' and string.sub(low, 2) or '(' .. low
  local first = low == '-inf' and 0 or redis.call('ZCOUNT', zset, '-inf', below)
  return first, first + redis.call('ZCOUNT', zset, low, high) - 1
end

-- The members of a set whose rank in an ordered set lies between two, in its order: one command makes the intersection, and
-- its ends are found by halving.
local function intersection(set, zset, first, last)
  local found = redis.call('ZINTER', 2, set, zset, 'WEIGHTS', 0, 1)
  local function before(rank) -- how many of them have a lower rank
    local low, high = 0, #found
    while low < high do
      local middle = math.floor((low + high) / 2)
      if redis.call('ZRANK', zset, found[middle + 1]) < rank then low = middle + 1 else high = middle end
    end
    return low
  end
  local out = {}
  for i = before(first) + 1, before(last + 1) do out[#out + 1] = found[i] end
  return out
end

-- Fix what both ways need: the stretch of the order that is left, in ranks, and what a walk of it is expected to cost.
local function survey(q)
  local s = {size = redis.call('ZCARD', q.order), limit = q.limit < 0 and math.huge or q.limit}
  s.first, s.last = 0, s.size - 1
  if q.low then s.first, s.last = ranks_between(q.order, q.low, q.high) end
  if q.after then
    local at = rank_behind(q, q.after[1], q.after[2])
    if q.desc then s.last = math.min(s.last, at) else s.first = math.max(s.first, at) end
  end
  s.stretch = math.max(0, s.last - s.first + 1)
  s.whole = s.stretch == s.size and q.order == home.order
  s.smallest = q.where[1] == 'all' and math.huge or where.size(q.where)
  local wanted = q.offset + (q.capped and math.min(s.limit, q.rows) or s.limit)
  s.expected = s.stretch
  if q.where[1] == 'all' then s.expected = math.min(s.stretch, wanted)
  elseif wanted < math.huge then s.expected = math.min(s.stretch, wanted * s.size / math.max(s.smallest, 1)) end
  s.gathers = s.smallest <= q.gather and s.smallest * 3 <= s.expected
  return s
end

function walk.plan(q)
  local s = survey(q)
  local how = (s.gathers or (q.out == 'count' and s.smallest <= q.gather)) and 'gather' or 'walk'
  return {how, s.smallest == math.huge and -1 or s.smallest, s.stretch, math.ceil(s.expected)}
end

local function reversed(members)
  for i = 1, math.floor(#members / 2) do
    members[i], members[#members + 1 - i] = members[#members + 1 - i], members[i]
  end
  return members
end

-- Those of the gathered members that lie in the stretch, in order.
local function gathered(q, s)
  if q.where[1] == 'set' and #q.where == 2 and q.order ~= home.order then
    local found = intersection(q.where[2], q.order, s.first, s.last)
    if where.due() then found = where.alive(found) end
    return q.desc and reversed(found) or found
  end
  local found = matching(q, where.gather(q.where))
  local ranks, by_rank = {}, {}
  for i = 1, #found do
    local rank = redis.call('ZRANK', q.order, found[i])
    if rank and rank >= s.first and rank <= s.last then
      ranks[#ranks + 1] = rank
      by_rank[rank] = found[i]
    end
  end
  table.sort(ranks) -- of numbers, without a function to compare them: three times as fast
  for i = 1, #ranks do ranks[i] = by_rank[ranks[i]] end
  return q.desc and reversed(ranks) or ranks
end

local function next_place(q, member, offset, limit)
  return {redis.call('ZSCORE', q.order, member), member, offset, limit == math.huge and -1 or limit}
end

local function cut(q, s, ranked)
  local out = {}
  local most = q.capped and math.min(s.limit, q.rows) or s.limit
  local last = math.min(#ranked, q.offset + most)
  for i = q.offset + 1, last do out[#out + 1] = ranked[i] end
  if #out == most and #out < s.limit and last < #ranked then
    return out, next_place(q, out[#out], 0, s.limit - #out)
  end
  return out, false
end

-- Visit the stretch chunk by chunk; `take(members)` gets those that match and says whether to go on. Returns where the
-- next slice begins, or true when gathering is less work after all.
local function visit(q, s, take)
  local at = q.desc and s.last or s.first
  local step, visited = math.ceil(math.max(16, math.min(1024, s.expected * 1.2))), 0
  local changed_over = s.smallest > q.gather
  local stop_member
  local going = true
  while going and (q.desc and at >= s.first or not q.desc and at <= s.last) and visited < q.slice do
    step = math.max(1, math.min(step, q.slice - visited))
    if not changed_over and visited > s.smallest * 3 and visited > 512 then return true end
    local chunk
    if q.desc then
      local to = math.max(s.first, at - step + 1)
      chunk = reversed(redis.call('ZRANGE', q.order, to, at))
      at = to - 1
    else
      chunk = redis.call('ZRANGE', q.order, at, math.min(s.last, at + step - 1))
      at = at + #chunk
    end
    if #chunk == 0 then break end
    visited = visited + #chunk
    stop_member = chunk[#chunk]
    local last_taken
    going, last_taken = take(matching(q, chunk))
    if last_taken then return last_taken end
    step = math.min(math.max(step, 64), 1024)
  end
  if (q.desc and at >= s.first or not q.desc and at <= s.last) and stop_member then return stop_member end
  return false
end

function walk.members(q)
  local s = survey(q)
  if s.gathers then return cut(q, s, gathered(q, s)) end
  local taken, offset = {}, q.offset
  local most = q.capped and math.min(s.limit, q.rows) or s.limit
  local stop = visit(q, s, function(found)
    for i = 1, #found do
      if offset > 0 then offset = offset - 1
      else
        taken[#taken + 1] = found[i]
        if #taken >= most then return false, found[i] end
      end
    end
    return #taken < q.rows
  end)
  if stop == true then return cut(q, s, gathered(q, s)) end
  if #taken >= s.limit then stop = false end
  return taken, stop and next_place(q, stop, offset, s.limit - #taken)
end

-- Whether gathering may give keys of records that do not exist.
local function names_records(c)
  if c[1] == 'keys' then return true end
  if c[1] ~= 'and' and c[1] ~= 'or' then return false end
  for i = 2, #c do
    if names_records(c[i]) then return true end
  end
  return false
end

-- The count of what is both in one value's set and in one range; nil for other conditions.
local function count_intersection(c)
  if c[1] ~= 'and' or #c ~= 3 then return nil end
  local set, range = c[2], c[3]
  if set[1] == 'range' then set, range = range, set end
  if set[1] ~= 'set' or #set ~= 2 or range[1] ~= 'range' then return nil end
  return #intersection(set[2], range[2], ranks_between(range[2], range[3], range[4]))
end

function walk.count(q)
  local op = q.where[1]
  if walk.due == nil then walk.due = where.due() or false end
  if not walk.due and not q.low then -- what one index knows
    if op == 'all' then return redis.call('SCARD', home.class), false end
    local exactly = where.exactly(q.where)
    if exactly then return exactly, false end
  end
  local s = survey(q)
  if s.smallest <= q.gather then
    local known = s.whole and not walk.due and count_intersection(q.where)
    if known then return known, false end
    if s.whole then
      local found = matching(q, where.gather(q.where))
      return names_records(q.where) and #where.keep({'set', home.class}, found) or #found, false
    end
    return #gathered(q, s), false
  end
  local count = 0
  local stop = visit(q, s, function(found)
    count = count + #found
    return true
  end)
  if stop == true then return #gathered(q, s), false end
  return count, stop and next_place(q, stop, 0, math.huge)
end
