-- select: filter, order, cut and read records in one call; what is large goes in slices.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map:
--                    where   tree of conditions (lib_where)
--                    order   key of the ordered set that gives the order
--                    low, high   only members with a score in this range (strings), or false
--                    desc    true: descending
--                    offset, limit   of the whole answer; limit -1 = none
--                    out     'hash' = key and HGETALL of each, 'fields' = key and HMGET of `fields`, 'keys', 'count'
--                    fields  for 'fields'
--                    after   false, or {score, member}: where the last slice stopped
--                    gather  matches up to this many are collected and sorted at once
--                    shared  sets that must be empty for the answer to be exact (kind_zset)
--                    slice, rows  members visited and (about) rows read at most in one call
--
-- returns  'shared' when one of those sets is not empty; else
--          {next, rows}: next = {score, member, offset left, limit left} when there is more, else false; rows is a flat
--          list {key, values, key, values...}, {key...} or, for 'count', a number. A record that cannot be read has false
--          in place of its values.
-- errors   none of its own
-- cost     gather: O(m log n) for m records in the smallest index set; walk: O(visited)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
local q = cmsgpack.unpack(ARGV[1])
for i = 1, #q.shared do
  if redis.call('SCARD', q.shared[i]) > 0 then return 'shared' end
end
local due = where.due()
local limit = q.limit < 0 and math.huge or q.limit
local offset = q.offset
local counting = q.out == 'count'
local everything = q.where[1] == 'all'

local function matching(members)
  if not everything then members = where.keep(q.where, members) end
  if due then members = where.alive(members) end
  return members
end

local function read(members)
  if q.out == 'keys' then return members end
  local rows = {}
  for i = 1, #members do
    local values
    if q.out == 'hash' then values = redis.pcall('HGETALL', members[i])
    else values = redis.pcall('HMGET', members[i], unpack(q.fields)) end
    rows[#rows + 1] = members[i]
    rows[#rows + 1] = (not values.err) and values or false
  end
  return rows
end

-- 1. Counts that one index knows.
if counting and not due and not q.low then
  local op = q.where[1]
  if everything then return {false, redis.call('SCARD', home.class)} end
  if op == 'set' or op == 'range' or ((op == 'starts' or op == 'ends') and q.where[2]) then
    return {false, where.size(q.where)}
  end
end

-- 2. The stretch of the order that is walked, in ranks from its start.
local size = redis.call('ZCARD', q.order)
local first, last = 0, size - 1
if q.low then
  local below = string.sub(q.low, 1, 1) == '(' and string.sub(q.low, 2) or '(' .. q.low
  first = q.low == '-inf' and 0 or redis.call('ZCOUNT', q.order, '-inf', below)
  last = first + redis.call('ZCOUNT', q.order, q.low, q.high) - 1
end
local stretch = last - first + 1

local function stretch_of(rank) return rank and rank >= first and rank <= last end

-- 3. Gather the smallest index set, test the rest, sort by rank: right when few match.
local function gather()
  local found = matching(where.gather(q.where))
  local ranked = {}
  for i = 1, #found do
    local rank = redis.call('ZRANK', q.order, found[i])
    if stretch_of(rank) then ranked[#ranked + 1] = {rank, found[i]} end
  end
  if counting then return {false, #ranked} end
  if q.desc then table.sort(ranked, function(a, b) return a[1] > b[1] end)
  else table.sort(ranked, function(a, b) return a[1] < b[1] end) end
  local out = {}
  for i = q.offset + 1, math.min(#ranked, q.offset + limit) do out[#out + 1] = ranked[i][2] end
  return {false, read(out)}
end

local smallest = everything and math.huge or where.size(q.where)
local expected = limit == math.huge and stretch or math.min(stretch, (offset + limit) * stretch / math.max(smallest, 1))
if everything then expected = math.min(stretch, offset + limit) end
if not q.after and smallest <= q.gather then
  if counting or smallest * 3 <= expected then return gather() end
end

-- Lua compares strings by the server's locale; ordered sets compare bytes.
local function not_behind(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a <= #b
end

-- 4. Walk the order from where the last slice stopped. Positions are (score, member), for ranks shift between calls.
local function rank_after(score, member)
  local rank = redis.call('ZRANK', q.order, member)
  if rank and redis.call('ZSCORE', q.order, member) == score then return q.desc and rank - 1 or rank + 1 end
  -- the member is gone or moved: the first one behind its old place, by binary search among equal scores
  local low = redis.call('ZCOUNT', q.order, '-inf', '(' .. score)
  local high = redis.call('ZCOUNT', q.order, '-inf', score)
  if q.where and redis.call('ZCOUNT', q.order, '-inf', '+inf') == high - low then
    low = low + redis.call('ZLEXCOUNT', q.order, '-', '[' .. member)
  else
    while low < high do
      local middle = math.floor((low + high) / 2)
      if not_behind(redis.call('ZRANGE', q.order, middle, middle)[1], member) then low = middle + 1
      else high = middle end
    end
  end
  return q.desc and low - 1 or low
end

local at = q.desc and last or first
if q.after then at = rank_after(q.after[1], q.after[2]) end
local step, visited, taken = math.ceil(math.max(16, math.min(1024, expected * 1.2))), 0, {}
local matched = 0
local changed_over = q.after or smallest > q.gather
local stop_member
while (q.desc and at >= first or not q.desc and at <= last) and #taken < limit and #taken < q.rows
  and visited < q.slice do
  step = math.max(1, math.min(step, q.slice - visited))
  if not changed_over and visited > smallest * 3 and visited > 512 then return gather() end
  local chunk
  if q.desc then
    local to = math.max(first, at - step + 1)
    chunk = redis.call('ZRANGE', q.order, to, at)
    for i = 1, math.floor(#chunk / 2) do chunk[i], chunk[#chunk + 1 - i] = chunk[#chunk + 1 - i], chunk[i] end
    at = to - 1
  else
    chunk = redis.call('ZRANGE', q.order, at, math.min(last, at + step - 1))
    at = at + #chunk
  end
  if #chunk == 0 then break end
  visited = visited + #chunk
  stop_member = chunk[#chunk]
  local found = matching(chunk)
  if counting then matched = matched + #found
  else
    for i = 1, #found do
      if offset > 0 then offset = offset - 1
      elseif #taken < limit then taken[#taken + 1] = found[i] end
    end
  end
  step = math.min(math.max(step, 64), 1024)
end
local more = false
if (q.desc and at >= first or not q.desc and at <= last) and #taken < limit and stop_member then
  more = {redis.call('ZSCORE', q.order, stop_member), stop_member, offset,
    limit == math.huge and -1 or limit - #taken}
end
if counting then return {more, matched} end
return {more, read(taken)}
