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
--                    slice       members visited at most in one call; and three times as many scores asked for, or hardly more
--                    chunks      members taken from a set at once: {at first, at most}
--                    gather      up to this many matches of the filter are collected and scored at once
--                    rows        up to this many results are read in the same call
--                    fields      of the results that are read
-- ARGV[2]  bytes   what the last slice returned as `state`, or ''
--
-- returns  {code, flat, rows, visited, state}. code 0: done; flat = {member, score, ...} best first, scores as text; rows =
--          {HMGET of `fields`, ...} of the same, empty when there are more than `rows`. 1: call again with `state`. For
--          `members`: {0, {member, score, {score of each signal or false}, ...}}, only those that are candidates
-- errors   none of its own
-- cost     O(visited * signals * log n); visited is not much above 1.2 times the candidates, where a signal holds them all
--
-- How: Fagin's threshold algorithm (Fagin, Lotem, Naor 2003). Each set is walked from the end where its signal's part is
-- high. Nobody who is not met yet is ahead of the next one of any set, so none has more than the aggregate of these: once
-- that bound is below the n-th best, that is all. The set whose walk lowers the bound fastest goes on. Who is met is looked
-- up in the other sets one after the other, and dropped as soon as what is known and the bounds of the rest are too low, or
-- when it turns out to stand where another walk has been.
local q = cmsgpack.unpack(ARGV[1])
local home = {class = KEYS[q.home], order = KEYS[q.home + 1], expiry = KEYS[q.home + 2]}
LIB_WHERE
local state = ARGV[2] ~= '' and cmsgpack.unpack(ARGV[2]) or nil
local everything = q.where[1] == 'all'
local top = top_of(q.n)
local visited, total = 0, state and state.total or 0
local looked = 0 -- scores that were asked for
local summed, lowest = q.aggregate == 'SUM', q.aggregate == 'MIN'
local MISSING = lowest and math.huge or 0 -- what an index counts for a record that it does not hold
local least = q.least or -math.huge

-- 1. Signals, and the sets that are walked.
local signals, sets = signals_of(q.signals, KEYS, q.now, redis.call('ZCARD', home.order))
local largest = 0
for i = 1, #sets do largest = math.max(largest, sets[i].size) end

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
  set.at = set.walk.score
  if set.needs_far then
    local far = redis.call(set.ascending and 'ZREVRANGE' or 'ZRANGE', set.key, 0, 0, 'WITHSCORES')[2]
    set.far = far and score_number(far)
  end
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
local function to_be_continued(last)
  local walks, taken = {}, {}
  for i = 1, #sets do
    local walk = sets[i].walk
    walks[i] = walk.done and 'done' or {walk.text, walk.member, sets[i].step}
    taken[i] = sets[i].earlier + walk.taken
  end
  return {1, {}, {}, visited, cmsgpack.pack({total = total + visited, top = top.held(), walks = walks, taken = taken,
    names = set_names, last = last})}
end

local function finished()
  if state then -- slices see no snapshot: the best are scored once more, as they stand now
    if visited > 0 and visited + top.size > q.slice then return to_be_continued(true) end
    local members, before = top.members(), visited
    top = top_of(q.n)
    offer_all(members)
    visited = before
  end
  local flat, rows = top.ranked(q.rows, q.fields)
  return {0, flat, rows, visited}
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
  if state.last then return finished() end
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

local choose, enough = choice_of(sets, q.aggregate, q.chunks[1], bound, goal)

-- What is asked for together; first that of which most turn out low. `typical`: what somebody has of it, or `cap` tells.
local units, unit_of = {}, {}
for i = 1, #signals do
  local signal = signals[i]
  local alone, unit = signal.in_parts and summed, nil
  for k = 1, #signal.sets do
    local set = signal.sets[k]
    if alone or not unit then
      unit = {signal = signal, alone = alone, typical = 0}
      units[#units + 1] = unit
    end
    unit[#unit + 1], unit_of[set] = set, unit
    if set.size * 2 > largest then
      local rank = math.floor(set.size / 2)
      local middle = redis.call('ZRANGE', set.key, rank, rank, 'WITHSCORES')[2]
      set.middle = middle and score_number(middle)
    end
  end
end
for i = 1, #units do
  local unit = units[i]
  if unit.alone then
    local set = unit[1]
    unit.cap = set.middle and not set.walk.done and set.cap
  else
    local values = {}
    for k = 1, #unit do values[k] = unit[k].middle or false end
    unit.typical = unit.signal.part_of(values) or 0
  end
end

-- The most that a unit gives to somebody who is not met, as the bound has it.
local function high_of(unit)
  local high
  if unit.alone and #unit.signal.sets > 1 then high = unit[1].high()
  else high = unit.signal.highest() end
  if not lowest and (not high or (high < 0 and not unit.signal.complete)) then return 0 end
  return high
end

-- Take the next ones of a set, and score those who are not dropped on the way.
local pos = {}
local function advance(set, most, count)
  local wanted, room = goal(), 0
  local order, own = {}, unit_of[set]
  for i = 1, #units do
    local unit = units[i]
    local high = high_of(unit)
    unit.high = high
    if high then room = room + math.abs(high) end
    if unit ~= own then
      local gap = (high or 0) - (unit.cap and unit.cap(unit[1].middle) or unit.typical)
      unit.gap = gap
      local at = #order + 1
      while at > 1 and order[at - 1].gap < gap do
        order[at] = order[at - 1]
        at = at - 1
      end
      order[at] = unit
    end
  end
  order[#order + 1] = own -- what they have in the set that is walked is known best
  local can_drop = wanted > -math.huge and q.aggregate ~= 'MAX' and most < math.huge
  local limit = can_drop and wanted - room * 1e-12 or -math.huge -- a bound minus its parts is not the sum to the last bit

  local members = set.walk.names(count)
  set.step = math.min(set.step * 4, q.chunks[2])
  visited = visited + #members
  local left, arrays, seen, caps_of, rest = #members, {}, {}, {}, {}
  for i = 1, left do rest[i] = most end

  -- Keep the first `kept` of those at the places in `pos`.
  local function keep(kept)
    if kept < left then
      for a = 1, #arrays do
        local array = arrays[a]
        for i = 1, kept do array[i] = array[pos[i]] end
      end
      left = kept
    end
  end

  -- Look the members up in a set. Who stands there ahead of the next one was met there, and is not looked at again; neither
  -- is who is now known to be too low. `high`: what the set gives in the bound; nil: nobody is too low for what it says.
  local function ask(asked, high)
    local key, found = asked.key, nil
    looked = looked + left
    if left <= 4000 then found = redis.call('ZMSCORE', key, unpack(members, 1, left)) else found = looked_up(key, members) end
    local from, to = -math.huge, math.huge -- where those stand who may not be met yet
    if asked ~= set then
      if asked.walk.done then from, to = to, from
      elseif asked.ascending then from = asked.at
      else to = asked.at end
    end
    local cap, times, sure = asked.cap, asked.times, asked.sure
    local others = seen[asked.partner]
    local before = others and caps_of[asked.partner]
    local caps = high and asked.partner and not others and {} or nil
    local kept = 0
    for i = 1, left do
      local value = found[i]
      if value then value = tonumber(value) or score_number(value) end
      if not value or (value <= to and value >= from) then
        local best = rest[i]
        local here = 0
        if high then
          if not value then
            if sure then here = math.huge end
          elseif times then here = times * value
          else here = cap(value, others and others[i]) end
          best = best - (before and before[i] or high) + here
        end
        if not (best < limit) then
          kept = kept + 1
          found[kept], rest[kept], pos[kept] = value, best, i
          if kept < i then members[kept] = members[i] end
          if caps then caps[kept] = here end
        end
      end
    end
    keep(kept)
    seen[asked], caps_of[asked] = found, caps
    arrays[#arrays + 1] = found
    arrays[#arrays + 1] = caps
  end

  for o = 1, #order do
    local unit = order[o]
    for k = 1, #unit do
      if left > 0 then ask(unit[k], can_drop and unit.alone and unit.high or nil) end
    end
    if can_drop and not unit.alone and left > 0 then
      local values, kept = {}, 0
      for i = 1, left do
        for k = 1, #unit do values[k] = seen[unit[k]][i] end
        local part, stays = unit.signal.part_of(values, members[i]), true
        if summed then
          local best = rest[i] - (unit.high or 0) + (part or 0)
          rest[kept + 1] = best
          stays = not (best < limit)
        elseif part then stays = part >= wanted end
        if stays then
          kept = kept + 1
          pos[kept], members[kept] = i, members[i]
        end
      end
      keep(kept)
    end
    if left == 0 then break end
  end
  set.at, set.known = set.walk.score, nil
  local together = set.signal.sets
  for i = 1, #together do together[i].falls = nil end
  if left == 0 then return end

  local scores, known, parts, values = {}, {}, {}, {}
  for i = 1, left do
    for s = 1, #signals do
      local signal = signals[s]
      for k = 1, #signal.sets do values[k] = seen[signal.sets[k]][i] end
      parts[s] = signal.part_of(values, members[i])
    end
    local score = aggregated(parts)
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
  if visited >= q.slice or looked >= 3 * q.slice then return to_be_continued() end
  local set, depth = choose(most)
  if not set then break end
  advance(set, most, enough(set, most, math.min(set.step, depth, q.slice - visited)))
end
return finished()
