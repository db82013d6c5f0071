-- top_by_decay: the n records with the highest base * factor(age), exactly, without scoring them all.
--
-- KEYS[1]  zset    member -> last touched, Unix seconds
-- KEYS[2]  zset    member -> base score; or any set that holds every member, where all bases are 1
-- KEYS[3]  set     all records of the model
-- KEYS[4]  zset    the same, all scores 0
-- KEYS[5]  zset    records with a TTL -> when they expire, ms
-- KEYS[6]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map:
--                    now, rate     of the formula (lib_decay)
--                    base          'set' = the score in KEYS[2]; 'one' = 1; 'hash' = the field `field` of each record
--                    field         for 'hash'; false = 1
--                    paired        true: KEYS[1] and KEYS[2] must have the same members
--                    n             how many are wanted, at least 1
--                    where         tree of conditions (lib_where)
--                    members       false, or a list: only these are looked at; `last`: no further list follows
--                    collect       true: keep no best n, give every candidate of the slice
--                    slice         members visited at most in one call
--                    chunks        {first, largest}: members taken from a set at once
--                    gather        up to this many matches of the filter are collected and scored at once
--                    rows          up to this many results are read in the same call
--                    fields        of the results that are read
-- ARGV[2]  bytes   what the last slice returned as `state`, or ''
--
-- returns  {code, flat, rows, visited, state}. code 0: done; flat = {member, score, ...} best first, scores as text; rows =
--          {HMGET of `fields`, ...} of the same, empty when there are more than `rows`. 1: call again with `state`; flat is
--          empty, or what `collect` found. 2: KEYS[2] does not hold every member: ask again with base = 'hash'.
-- errors   none of its own
-- cost     O(visited * log n); visited grows like the square root of the number of records for independent times and bases
--
-- How: Fagin's threshold algorithm (Fagin, Lotem, Naor 2003). Both sets are walked from the end where the scores are high.
-- Whoever is met in one is looked up in the other, and so scored at once. Nobody who is not met yet is ahead of the next
-- one of either set, so none scores more than the product of the two: once that bound is below the n-th best, that is all.
-- While bases are positive, high factors come first; from base 0 down, low ones do, so the times are then walked from the
-- other end.
local home = {class = KEYS[3], order = KEYS[4], expiry = KEYS[5]}
LIB_WHERE
local q = cmsgpack.unpack(ARGV[1])
local state = ARGV[2] ~= '' and cmsgpack.unpack(ARGV[2]) or nil
local everything = q.where[1] == 'all'
local decay = decay_of(q.now, q.rate)
local factor_at = decay.factor
local top = top_of(q.n)
local negative = state ~= nil and state.negative
local visited, total = 0, state and state.total or 0
local size = redis.call('ZCARD', KEYS[1])

if q.base ~= 'hash' then
  local held = redis.call('ZCARD', KEYS[2])
  if held < size or (q.paired and held > size) then return {2} end
end
if state then
  top.restore(state.top)
end

-- 1. Scores.
-- A list of numbers; false for a member that the base set does not know.
local function bases_of(members)
  if q.base == 'set' then return looked_up(KEYS[2], members) end
  local out = {}
  for i = 1, #members do
    out[i] = q.base == 'hash' and q.field and base_number(redis.call('HGET', members[i], q.field)) or 1
  end
  return out
end

local admitted = not everything and function(members) return where.keep(q.where, members) end

-- Score a list of records, whatever their place; false when a base is unknown.
local function offer_all(members)
  local times, bases = looked_up(KEYS[1], members), bases_of(members)
  local known, scores = {}, {}
  for i = 1, #members do
    if times[i] then
      if not bases[i] then return false end
      known[#known + 1] = members[i]
      scores[#known] = bases[i] * factor_at(times[i])
    end
  end
  visited = visited + #members
  top.offer(known, scores, -math.huge)
  return true
end

-- 2. Replies.
local function finished()
  if state then
    -- slices see no snapshot: the best are scored once more, as they stand now
    local members = top.members()
    if not everything and not q.members then members = where.keep(q.where, members) end
    top = top_of(q.n)
    local before = visited
    if not offer_all(members) then return {2} end
    visited = before
  end
  local flat, rows = top.ranked(q.rows, q.fields)
  return {0, flat, rows, visited}
end

local times, bases -- the two walks

local function to_be_continued(found)
  return {1, found or {}, {}, visited, cmsgpack.pack({
    negative = negative, total = total + visited, top = found and {} or top.held(),
    times = times and {times.text, times.member, times.earlier + times.taken, times.step},
    bases = bases and {bases.text, bases.member, bases.earlier + bases.taken, bases.step},
  })}
end

-- 3. Given members, and walks of the times alone.
if q.members then
  if not offer_all(q.members) then return {2} end
  if q.last then return finished() end
  return to_be_continued()
end

local function open(key, ascending, at)
  local walk = walk_of(key, ascending, at)
  walk.earlier, walk.step, walk.known = at and at[3] or 0, at and at[4] or q.chunks[1], {}
  return walk
end

local function open_times(at) return open(KEYS[1], (q.rate < 0) ~= negative, at) end

local function take(walk)
  local members, texts = walk.take(math.min(walk.step, q.slice - visited))
  walk.step = math.min(walk.step * 2, q.chunks[2])
  visited = visited + #members
  return members, texts
end

local function take_names(walk)
  local members = walk.names(math.min(walk.step, q.slice - visited))
  walk.known = {}
  walk.step = math.min(walk.step * 2, q.chunks[2])
  visited = visited + #members
  return members
end

times = open_times(state and state.times)

if q.collect then
  local out = {}
  while not times.done and visited < q.slice do
    local members = take(times)
    if not everything then members = where.keep(q.where, members) end
    members = where.alive(members)
    local at, base = looked_up(KEYS[1], members), bases_of(members)
    for i = 1, #members do
      if not base[i] then return {2} end
      out[#out + 1] = members[i]
      out[#out + 1] = string.format('%.17g', base[i] * factor_at(at[i]))
    end
  end
  if times.done then return {0, out, {}, visited} end
  return to_be_continued(out)
end

-- 4. The filter leaves few: score just those. A walk would visit about N * sqrt(n / matches) members, if filter and score
-- have nothing to do with each other; if it went on for longer than that, they have, and the filter takes over.
local matches = everything and math.huge or where.size(q.where)
local can_gather = matches <= q.gather
local function gathered() return offer_all(where.gather(q.where)) end
if can_gather and not state and matches <= 2 * size * math.sqrt(q.n / math.max(matches, 1)) then
  if not gathered() then return {2} end
  return finished()
end

-- 5. The threshold algorithm.
if q.base ~= 'hash' then bases = open(KEYS[2], false, state and state.bases) end
local constant = q.base == 'one'
local all_wanted = q.n >= size
local near, far, least -- factors of the members that are not met: of the next one; at most behind it; at least, of all

local function look_ahead()
  if times.done then return end
  near = factor_at(times.score)
  local behind = times.beyond()
  far = behind and (negative and decay.below(behind) or not negative and decay.above(behind)) or nil
  least = nil
end

-- The most that a member can score whose base is b and whose time is not met yet.
local function bound(b)
  if negative then return b * math.min(near, far or near) end
  if b >= 0 then return b * math.max(near, far or near) end
  least = least or decay.below(times.ahead(math.huge))
  return b * least
end

local function next_base() return (constant or not bases) and 1 or bases.score end

-- True when nobody who is not met can be among the best. Equal scores go by name, descending as a walk from the top has
-- them: a set in which equal ones remain has none left that comes before the next one's name. So a tie with the n-th best
-- ends the walk too, if all who can reach it lie among the equal ones of one set, with names that lose.
local function nobody_left()
  if not top.full or not bases then return false end
  local b, worst = next_base(), top.score
  local most = bound(b)
  if most < worst then return true end
  if most <= worst and not name_before(top.member, bases.member) then
    local behind = not constant and bases.beyond()
    if not behind or bound(behind) < worst then return true end
  end
  return not times.ascending and b * near <= worst and not name_before(top.member, times.member)
    and (not far or b * far < worst)
end

local DEPTHS = {128, 512, 2048, 8192}

-- How much the bound falls a member, at best, if only this set is walked on.
local function slope(walk, bound_at, most, goal)
  local best = 0
  for i = 1, #DEPTHS do
    local there = walk.known[i] or walk.ahead(DEPTHS[i])
    walk.known[i] = there
    local reached = math.max(goal, bound_at(there))
    if reached < most then best = math.max(best, (most - reached) / math.min(DEPTHS[i], walk.left)) end
    if DEPTHS[i] >= walk.left then break end
  end
  return best
end

-- The set whose walk lowers the bound faster. The other one gets an eighth of the steps all the same: the guess may be
-- wrong, and then the cost stays within eight times the better choice.
local function choose()
  if not bases or all_wanted then return times end
  local in_times, in_bases = times.earlier + times.taken, bases.earlier + bases.taken
  if in_times * 8 < in_bases then return times elseif in_bases * 8 < in_times then return bases end
  local b = next_base()
  local most, goal = bound(b), top.full and top.score or -math.huge
  local by_time = slope(times, function(t)
    return b * (negative and decay.below(t) or not negative and decay.above(t))
  end, most, goal)
  local by_base = constant and 0 or slope(bases, bound, most, goal)
  if by_time == by_base then return in_times <= in_bases and times or bases end
  return by_time > by_base and times or bases
end

-- Take the next ones of a set and look them up in the other. What a member has in this set is at most what the first of
-- them has: with that, most prove too low already, and only the rest are asked for it. (Reading a score as text, and `pow`,
-- are what costs here.)
local function advance(walk)
  local by_time = walk == times
  local head = next_base()
  if by_time then head = negative and math.min(near, far or near) or math.max(near, far or near) end
  local full, worst = top.full, top.score
  local members = take_names(walk)
  local others = by_time and bases_of(members) or looked_up(KEYS[1], members)
  local kept, other_of, count = {}, {}, 0
  for i = 1, #members do
    local other = others[i]
    if other then
      if not by_time then other = factor_at(other) end
      -- a base on the other side of 0 than the walk is made for has no bound here but 0
      if not full or other * head >= worst or (by_time and (other < 0) ~= negative and (negative or worst < 0)) then
        count = count + 1
        kept[count], other_of[count] = members[i], other
      end
    elseif by_time then return false end
  end
  local own = (by_time or not constant) and looked_up(walk.key, kept)
  local near_best, scores, found = {}, {}, 0
  for i = 1, count do
    local value = by_time and factor_at(own[i]) or own and own[i] or 1
    local score = by_time and other_of[i] * value or value * other_of[i]
    if not full or score >= worst then
      found = found + 1
      near_best[found], scores[found] = kept[i], score
    end
  end
  top.offer(near_best, scores, -math.huge, admitted)
  return true
end

look_ahead()
while not times.done and not (bases and bases.done) do
  if bases and not constant and not negative and bases.score < 0 and not all_wanted then
    negative = true
    times = open_times()
    look_ahead()
  end
  if nobody_left() then break end
  if can_gather and total + visited > 2 * matches and (visited == 0 or visited + matches <= q.slice) then
    if not gathered() then return {2} end
    break
  end
  if visited >= q.slice then return to_be_continued() end
  local walk = choose()
  if not advance(walk) then return {2} end
  if walk == times then look_ahead() end
end
return finished()
