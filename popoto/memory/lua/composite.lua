-- composite: the n records with the highest weighted composite of several signals, exactly, without scoring them all.
--
-- KEYS[1..]  zset  the ordered sets of the signals; from place q.home on: all records of the model (set), the same as an
--                  ordered set, records with a TTL -> when they expire (zset), the sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map:
--                    home        place of the class set in KEYS
--                    now         of the decay formula (lib_decay)
--                    signals     list of {kind, weight, ...}:
--                                  'set', weight, place of the set in KEYS, complete
--                                  'decay', weight, place of the times, place of the bases (0 = none), complete, rate, base field
--                                  or false
--                                  'cyclic': as 'decay', with cycles and pressure (lib_cyclic)
--                                  'given', weight, flat list {member, score, ...}
--                                complete: every candidate has an entry, if the size confirms it: false, or a name; the
--                                sets of one name have the same members, those of '' every record
--                    aggregate   'SUM', 'MAX' (an index that does not hold a record counts 0) or 'MIN' (it does not count)
--                    n           how many are wanted, at least 1
--                    least       lowest score that counts, or false
--                    where       tree of conditions (lib_where)
--                    members     false, or a list: score just these and give them all, with the score of each signal
--                    slice       members visited at most in one call
--                    chunks      members taken from a set at once: {at first, at most}
--                    gather      up to this many matches of the filter are collected and scored at once
--                    rows        up to this many results are read in the same call
-- ARGV[2]  bytes   what the last slice returned as `state`, or ''
--
-- returns  {code, flat, rows, visited, state}. code 0: done; flat = {member, score, ...} best first, scores as text; rows =
--          {HGETALL, ...} of the same, empty when there are more than `rows`. 1: call again with `state`. For `members`:
--          {0, {member, score, {score of each signal or false}, ...}}, only those that are candidates
-- errors   none of its own
-- cost     O(visited * signals * log n)
--
-- How: Fagin's threshold algorithm (Fagin, Lotem, Naor 2003). Each set is walked from the end where its signal's part is
-- high. Nobody who is not met yet is ahead of the next one of any set, so none has more than the aggregate of these: once
-- that bound is below the n-th best, that is all. The set whose walk lowers the bound fastest goes on. Who is met is looked
-- up in the other sets one after the other, and dropped as soon as what is known and the bounds of the rest are too low.
local q = cmsgpack.unpack(ARGV[1])
local home = {class = KEYS[q.home], order = KEYS[q.home + 1], expiry = KEYS[q.home + 2]}
LIB_WHERE
local state = ARGV[2] ~= '' and cmsgpack.unpack(ARGV[2]) or nil
local everything = q.where[1] == 'all'
local top = top_of(q.n)
local visited, total = 0, state and state.total or 0
local summed, lowest = q.aggregate == 'SUM', q.aggregate == 'MIN'
local MISSING = lowest and math.huge or 0 -- what an index counts for a record that it does not hold
local least = q.least or -math.huge

-- 1. Signals. Each has `sets` (walks it depends on), part_of(values) = its part of a member's score, highest() = the most it
-- can be for somebody who is not met.
local sets, signals = {}, {}
local largest, of_group = 0, {[''] = redis.call('ZCARD', home.order)}

local function weighted(weight, score) return weight == 0 and 0 or weight * score end

local function set_named(key, ascending)
  local size = redis.call('ZCARD', key)
  if size > largest then largest = size end
  local set = {key = key, ascending = ascending, size = size, number = #sets + 1}
  sets[#sets + 1] = set
  return set
end

local function set_of(place, ascending) return set_named(KEYS[place], ascending) end

local function open(set)
  local at = state and state.walks[set.number]
  if at == 'done' then
    set.walk = {done = true, taken = 0, left = 0}
    set.earlier, set.step = state.taken[set.number], q.chunks[2]
    return
  end
  set.walk = walk_of(set.key, set.ascending, at or nil)
  set.earlier = state and state.taken[set.number] or 0
  set.step = at and at[3] or q.chunks[1]
  local range = set.ascending and 'ZREVRANGE' or 'ZRANGE' -- the far end
  local far = redis.call(range, set.key, 0, 0, 'WITHSCORES')[2]
  set.far = far and score_number(far)
  set.at = set.walk.score
end

for number, s in ipairs(q.signals) do
  local kind, weight = s[1], s[2]
  local signal = {weight = weight, number = number}
  signals[number] = signal
  if kind == 'set' then
    local set = set_of(s[3], weight < 0)
    signal.sets, signal.complete = {set}, s[4]
    function signal.part_of(values) return values[1] and weighted(weight, values[1]) end
    function signal.highest()
      if set.walk.done then return nil end
      return weighted(weight, set.at)
    end
  elseif kind == 'decay' or kind == 'cyclic' then
    local rate, field = s[6], s[7]
    local decay = decay_of(q.now, rate)
    local times, bases = set_of(s[3], (rate < 0) ~= (weight < 0)), s[4] > 0 and set_of(s[4], weight < 0)
    signal.sets, signal.complete = {times, bases or nil}, s[5]
    -- a base set that lacks members cannot bound them: records that were stored before it was kept
    local whole
    if bases then whole = bases.size >= times.size else whole = not field end
    function signal.part_of(values, member)
      local touched, base = values[1], bases and values[2]
      if not touched then return nil end
      if not base then base = field and member and base_number(redis.call('HGET', member, field)) or 1 end
      return weighted(weight, base * decay.factor(touched))
    end
    function signal.highest()
      if times.walk.done or (whole and bases and bases.walk.done) then return nil end
      if not whole then return math.huge end
      if weight == 0 then return 0 end
      local near, far = times.at, times.far
      local high = math.max(decay.above(near), decay.above(far))
      local low = math.min(decay.below(near), decay.below(far))
      local a, b = bases and bases.at or 1, bases and bases.far or 1
      return math.max(weight * (a * high), weight * (a * low), weight * (b * high), weight * (b * low))
    end
    if kind == 'cyclic' then add_cycles(signal, times, q.now, set_named) end
  else
    local scores, members = {}, {}
    for i = 1, #s[3], 2 do
      members[#members + 1] = s[3][i]
      scores[s[3][i]] = s[3][i + 1]
    end
    signal.sets, signal.members = {}, members
    function signal.part_of(_, member) return scores[member] and weighted(weight, scores[member]) end
    function signal.highest() return nil end -- all of them are scored at the start
  end
end
for i = 1, #signals do
  local group, set = signals[i].complete, signals[i].sets[1]
  if group then of_group[group] = math.max(of_group[group] or 0, set.size) end
end
for i = 1, #signals do
  local signal = signals[i]
  signal.complete = signal.complete and signal.sets[1].size >= of_group[signal.complete]
end

local set_names = {}
for i = 1, #sets do set_names[i] = sets[i].key end
set_names = table.concat(set_names, '\n')
if state and state.names ~= set_names then state, total = nil, 0 end -- a cycle shape came or went between two slices

-- The aggregate of parts; nil stands for an index that does not hold the record. NaN (inf - inf) counts 0, as on the server.
local function aggregated(parts)
  local score, held = nil, false
  for i = 1, #signals do
    local part = parts[i]
    if part then held = true else part = MISSING end
    if not score then score = part
    elseif summed then score = score + part
    elseif lowest then score = math.min(score, part)
    else score = math.max(score, part) end
  end
  if score ~= score then score = 0 end
  return held and score or nil
end

-- The most that anybody who is not met can score; nil when all were met.
local function bound()
  local score, anyone = nil, false
  local capped
  for i = 1, #signals do
    local signal = signals[i]
    local high = signal.highest()
    if high then anyone = true end
    if lowest then
      if signal.complete then
        if not high then return nil end
        capped = capped and math.min(capped, high) or high
      elseif high then score = score and math.max(score, high) or high end
    else
      if signal.complete then
        if not high then return nil end
      elseif not high or high < 0 then high = 0 end
      if not score then score = high
      elseif summed then score = score + high
      else score = math.max(score, high) end
    end
  end
  if not anyone then return nil end
  if capped then score = capped end
  if score ~= score then return math.huge end
  return score
end

-- 2. Candidates.
local function goal() return math.max(top.full and top.score or -math.huge, least) end

local admitted = not everything and function(members) return where.keep(q.where, members) end

-- The parts of each of these members, signal by signal.
local function parts_of(members)
  local values = {}
  for i = 1, #sets do values[i] = looked_up(sets[i].key, members) end
  local out = {}
  for m = 1, #members do
    local parts = {}
    for i = 1, #signals do
      local signal = signals[i]
      local own = {}
      for k = 1, #signal.sets do own[k] = values[signal.sets[k].number][m] end
      parts[i] = signal.part_of(own, members[m])
    end
    out[m] = parts
  end
  return out
end

-- `tested`: the filter has let them through already.
local function offer_all(members, tested)
  local known, scores = {}, {}
  local parts = parts_of(members)
  for i = 1, #members do
    local score = aggregated(parts[i])
    if score then
      known[#known + 1] = members[i]
      scores[#known] = score
    end
  end
  visited = visited + #members
  top.offer(known, scores, least, not tested and admitted)
end

-- 3. Replies.
local function finished()
  if state then -- slices see no snapshot: the best are scored once more, as they stand now
    local members, before = top.members(), visited
    top = top_of(q.n)
    offer_all(members)
    visited = before
  end
  local flat, rows = top.ranked(q.rows)
  return {0, flat, rows, visited}
end

local function to_be_continued()
  local walks, taken = {}, {}
  for i = 1, #sets do
    local walk = sets[i].walk
    walks[i] = walk.done and 'done' or {walk.text, walk.member, sets[i].step}
    taken[i] = sets[i].earlier + walk.taken
  end
  return {1, {}, {}, visited, cmsgpack.pack({total = total + visited, top = top.held(), walks = walks, taken = taken,
    names = set_names})}
end

if q.members then
  local members, flat = q.members, {}
  if not everything then members = where.keep(q.where, members) end
  members = where.alive(members)
  local all = parts_of(members)
  for i = 1, #members do
    local score = aggregated(all[i])
    if score then
      local parts = {}
      for s = 1, #signals do parts[s] = all[i][s] and string.format('%.17g', all[i][s]) or false end
      flat[#flat + 1] = members[i]
      flat[#flat + 1] = string.format('%.17g', score)
      flat[#flat + 1] = parts
    end
  end
  return {0, flat}
end

if state then
  top.restore(state.top)
else
  for i = 1, #signals do
    if signals[i].members then offer_all(signals[i].members) end
  end
end

-- 4. The filter leaves few: score just those. (See top_by_decay for the rule.)
local matches = everything and math.huge or where.size(q.where)
local can_gather = matches <= q.gather
if can_gather and not state and matches <= 2 * largest * math.sqrt(q.n / math.max(matches, 1)) then
  offer_all(where.gather(q.where), true)
  return finished()
end

-- 5. The threshold algorithm.
for i = 1, #sets do open(sets[i]) end

-- True when nobody who is not met can be among the best. Equal scores go by name, descending, as a walk from the top has
-- them: so a tie with the n-th best ends the walk too, where all who can reach it lie among the equal ones of one set, with
-- names that lose.
local function nobody_left(most)
  if not most or most < least then return true end
  if not top.full then return false end
  if most < top.score then return true end
  if most > top.score then return false end
  for i = 1, #signals do
    local signal = signals[i]
    for k = 1, #signal.sets do
      local set = signal.sets[k]
      if not set.ascending and not set.walk.done and not name_before(top.member, set.walk.member) then
        local here = set.at
        local behind = set.walk.beyond()
        local further
        if behind then
          set.at = behind
          further = bound()
          set.at = here
        end
        local absent -- somebody whom this set does not hold at all
        if not signal.complete or set.partial then
          set.walk.done = true
          absent = bound()
          set.walk.done = false
        end
        if (not further or further < top.score) and (not absent or absent < top.score) then return true end
      end
    end
  end
  return false
end

local DEPTHS = {128, 512, 2048, 8192}

-- How much the bound falls a member, at best, if only this set is walked on.
local function slope(set, most, wanted)
  local best, here = 0, set.at
  for i = 1, #DEPTHS do
    local depth = math.min(DEPTHS[i], set.walk.left)
    local reached
    if depth >= set.walk.left then
      set.walk.done = true
      reached = bound()
      set.walk.done = false
    else
      set.at = set.walk.ahead(depth)
      reached = bound()
      set.at = here
    end
    reached = math.max(wanted, reached or -math.huge)
    if reached < most then best = math.max(best, (most - reached) / depth) end
    if depth < DEPTHS[i] then break end
  end
  return best
end

-- The set whose walk lowers the bound fastest. The others get a part of the steps all the same: the guess may be wrong.
local function choose(most)
  local wanted = goal()
  local best, best_slope, lagging, most_taken
  for i = 1, #sets do
    local set = sets[i]
    if not set.walk.done then
      local taken = set.earlier + set.walk.taken
      local falls = slope(set, most, wanted)
      if falls > 0 or not best then
        if not best or falls > best_slope then best, best_slope = set, falls end
      end
      if not lagging or taken < lagging.earlier + lagging.walk.taken then lagging = set end
      most_taken = math.max(most_taken or 0, taken)
    end
  end
  if best_slope == 0 and lagging then return lagging end
  if lagging and (lagging.earlier + lagging.walk.taken) * 16 < most_taken then return lagging end
  return best
end

-- How far the parts of a signal typically lie below the most it can be: who is asked for first.
local function spreads()
  local out = {}
  for i = 1, #signals do
    local signal = signals[i]
    if #signal.sets > 0 then
      local values, middle = {}, nil
      for k = 1, #signal.sets do
        local set = signal.sets[k]
        local rank = math.floor(set.size / 2)
        middle = redis.call('ZRANGE', set.key, rank, rank, 'WITHSCORES')[2]
        values[k] = middle and score_number(middle)
      end
      local typical = #values == #signal.sets and signal.part_of(values) or 0
      out[#out + 1] = {signal, (signal.highest() or 0) - typical}
    end
  end
  table.sort(out, function(a, b) return a[2] > b[2] end)
  local order = {}
  for i = 1, #out do order[i] = out[i][1] end
  return order
end
local asking = spreads()

-- Take the next ones of a set, and score those who are not dropped on the way.
local function advance(set, most)
  local count = math.min(set.step, q.slice - visited)
  local wanted = goal()
  local highest = {}
  local room = 0
  for i = 1, #signals do
    local high = signals[i].highest()
    if not lowest and (not high or (high < 0 and not signals[i].complete)) then high = 0 end
    highest[i] = high
    if high then room = room + math.abs(high) end
  end
  room = room * 1e-12 -- a bound minus its parts is not the sum of the rest to the last bit
  local members, walked = set.walk.take(count) -- `walked`: their scores in this set, so that nobody asks again
  set.step = math.min(set.step * 2, q.chunks[2])
  set.at = set.walk.score
  visited = visited + #members
  local can_drop = wanted > -math.huge and not (q.aggregate == 'MAX') and most < math.huge
  local parts, left, own, count_left = {}, {}, {}, #members
  for i = 1, count_left do walked[i] = score_number(walked[i]) end
  for a = 1, #asking do
    local signal = asking[a]
    local number, high, depends = signal.number, highest[signal.number], #signal.sets
    local values = {}
    for k = 1, depends do
      local asked = signal.sets[k]
      values[k] = asked == set and walked or looked_up(asked.key, members)
    end
    local kept, kept_parts, kept_left, kept_walked, n = {}, {}, {}, {}, 0
    for i = 1, count_left do
      for k = 1, depends do own[k] = values[k][i] end
      local member = members[i]
      local part, rest, stays = signal.part_of(own, member), left[i] or most, true
      if can_drop then
        if summed then
          if high then rest = rest - high + (part or 0) end
          stays = rest >= wanted - room
        elseif part then stays = part >= wanted end
      end
      if stays then
        n = n + 1
        local known = parts[i] or {}
        known[number] = part or nil
        kept[n], kept_parts[n], kept_left[n], kept_walked[n] = member, known, rest, walked[i]
      end
    end
    members, parts, left, walked, count_left = kept, kept_parts, kept_left, kept_walked, n
    if n == 0 then return end
    for k = 1, depends do own[k] = nil end
  end
  local scores, known = {}, {}
  for i = 1, #members do
    for s = 1, #signals do
      if signals[s].members then parts[i][s] = signals[s].part_of(nil, members[i]) end
    end
    local score = aggregated(parts[i])
    if score then
      known[#known + 1] = members[i]
      scores[#known] = score
    end
  end
  top.offer(known, scores, least, admitted)
end

while true do
  local most = bound()
  if nobody_left(most) then break end
  if can_gather and total + visited > 2 * matches and (visited == 0 or visited + matches <= q.slice) then
    offer_all(where.gather(q.where), true)
    break
  end
  if visited >= q.slice then return to_be_continued() end
  local set = choose(most)
  if not set then break end
  advance(set, most)
end
return finished()
