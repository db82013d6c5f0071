-- lib_choice: which of several walked sets goes on, and how far, so that a bound falls fastest.
--
-- choice_of(sets, aggregate, first, bound, goal)   returns choose, enough. sets, and `aggregate` of their signals: see
--                   lib_signals; first: members taken at once at first; bound(): the most that somebody can score who is
--                   not met, nil when all were met; goal(): below that it is over, -inf while there is none
-- choose(most)              a set, and how many of its members to take at most. most = bound()
-- enough(set, most, count)  how many of the next ones it takes to bring the bound below the goal; `count` if it takes more
--
-- Each set's score is read some depths further on (O(log n) each): what the bound would lose by that, divided by the depth,
-- says which walk is worth most.
local DEPTHS = {128, 512, 2048, 8192}

local function choice_of(sets, aggregate, first, bound, goal)
  local summed = aggregate == 'SUM'
  local whole_sets = {} -- each holds every candidate
  for i = 1, #sets do
    local set = sets[i]
    if set.signal.complete and (set.sure or #set.signal.sets == 1) then whole_sets[#whole_sets + 1] = set end
  end

  -- How much lower the bound were, if the next one of this set had the score `at`; nil: if there were none.
  local function fall_to(set, at, most)
    local signal, walk, here, fall = set.signal, set.walk, set.at, nil
    local quick = summed and most < math.huge -- only this part of the sum changes
    local high = (quick or aggregate == 'MAX') and (signal.highest() or 0)
    if at then set.at = at else walk.done = true end
    if quick then
      local low = signal.highest()
      if signal.complete then fall = low and high - low or math.huge
      else fall = math.max(high, 0) - math.max(low or 0, 0) end
    elseif high then -- the signal that gives the maximum is what can lower it
      local low = signal.highest()
      if not low and signal.complete then fall = math.huge
      else fall = high < most and 0 or math.max(0, most - (low or 0)) end
    else
      local low = bound()
      if not low then fall = math.huge
      elseif low < most then fall = most - low
      else fall = 0 end
    end
    if at then set.at = here else walk.done = false end
    return fall
  end

  -- The same at several places of a set: list of {how many members on, fall}.
  local function falls_of(set, most)
    if set.falls then return set.falls end
    local walk, falls = set.walk, {}
    local known = set.known -- what was read here, as long as this set is not walked on
    if not known then
      known = {}
      set.known = known
    end
    local left, flat = walk.left, false

    local function past_equals(most_depth) -- many equal ones come first: the bound falls where they end
      local tied = known.tied or walk.tied()
      known.tied = tied
      if tied > 0 and tied < most_depth then falls[#falls + 1] = {tied, fall_to(set, walk.beyond(), most)} end
    end

    for i = 1, #DEPTHS do
      local depth = DEPTHS[i]
      if depth >= left then break end
      local at = known[depth] or walk.ahead(depth)
      known[depth] = at
      if at ~= set.at then
        if flat then past_equals(depth) end
        falls[#falls + 1] = {depth, fall_to(set, at, most)}
      end
      flat = at == set.at
    end
    if flat then past_equals(left) end
    falls[#falls + 1] = {left, fall_to(set, nil, most)}
    if summed and most < math.huge then set.falls = falls end
    return falls
  end

  local function taken_of(set) return set.earlier + set.walk.taken end

  -- The set to walk on, and how far at most: the one that lowers the bound fastest. The others get a few steps all the same:
  -- the guess may be wrong. What is spent beside the set that holds every candidate and is walked furthest is a fifth of its
  -- size at most, and then only that one is walked: so all in all hardly more members are visited than there are.
  local function choose(most)
    local taken, whole = 0, nil
    for i = 1, #sets do taken = taken + taken_of(sets[i]) end
    for i = 1, #whole_sets do
      local set = whole_sets[i]
      if not set.walk.done and (not whole or taken_of(set) > taken_of(whole)) then whole = set end
    end
    if whole and (taken - taken_of(whole)) * 5 >= whole.size then return whole, whole.size end

    local wanted = goal()
    local lacking = most - wanted
    local best, best_slope, best_depth, lagging, most_taken = nil, 0, 0, nil, 0
    for i = 1, #sets do
      local set = sets[i]
      if not set.walk.done then
        local falls = falls_of(set, most)
        for k = 1, #falls do
          local depth, fall = falls[k][1], falls[k][2]
          if fall > lacking then fall = 0.7 * lacking end -- by then the goal will have risen
          -- before there is a goal, walking a set to its end is no aim
          if fall > best_slope * depth and (fall < math.huge or wanted > -math.huge) then
            best, best_slope, best_depth = set, fall / depth, depth
          end
        end
        local own = taken_of(set)
        if not lagging or own < taken_of(lagging) then lagging = set end
        if own > most_taken then most_taken = own end
      end
    end
    if not best then return lagging, math.huge end
    if (taken_of(lagging) + first) * 64 < most_taken then return lagging, first end
    return best, best_depth
  end

  -- How many of the next ones it takes to bring the bound below what the n-th has; `count` if it takes more.
  local function enough(set, most, count)
    local lacking = most - goal()
    if not (lacking < math.huge) or count < 16 then return count end
    local function reaches(depth)
      local at = nil
      if depth < set.walk.left then at = set.walk.ahead(depth) end
      return fall_to(set, at, most) > lacking
    end
    if not reaches(count) then return count end
    local few, many = 0, count
    for _ = 1, 4 do
      local middle = math.ceil((few + many) / 2)
      if reaches(middle) then many = middle else few = middle end
    end
    return many
  end

  return choose, enough
end
