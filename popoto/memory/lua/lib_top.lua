-- lib_top: the best n of what is offered, by score and then by name, both descending.
--
-- name_before(a, b)   byte order, as ordered sets have it. (Lua's own `<` follows the server's locale.)
-- top_of(n)           returns a table:
--   size              how many it holds; `full` when n
--   score, member     the worst of them, the one that the next better one drives out
--   enters(s, m)      would it be among the best n
--   put(s, m)         take it in (after `enters`); `has[m]` tells what is in
--   members(), held(), restore(held), offer(...), ranked(most)   see below
--   sorted()          list of {score, member}, best first
local function name_before(a, b)
  for i = 1, #a, 8 do -- keys begin alike: eight bytes a call
    local a1, a2, a3, a4, a5, a6, a7, a8 = string.byte(a, i, i + 7)
    local b1, b2, b3, b4, b5, b6, b7, b8 = string.byte(b, i, i + 7)
    local x, y
    if a1 ~= b1 then x, y = a1, b1 elseif a2 ~= b2 then x, y = a2, b2
    elseif a3 ~= b3 then x, y = a3, b3 elseif a4 ~= b4 then x, y = a4, b4
    elseif a5 ~= b5 then x, y = a5, b5 elseif a6 ~= b6 then x, y = a6, b6
    elseif a7 ~= b7 then x, y = a7, b7 elseif a8 ~= b8 then x, y = a8, b8 end
    if x ~= y then return (x or -1) < (y or -1) end
  end
  return #a < #b
end

local function top_of(n)
  local scores, members = {}, {} -- a binary heap, the worst at 1
  local top = {size = 0, full = false, has = {}}

  local function worse(s, m, i)
    return s < scores[i] or (s == scores[i] and name_before(m, members[i]))
  end

  local function sink(s, m)
    local i = 1
    while true do
      local child = 2 * i
      if child > top.size then break end
      if child < top.size and worse(scores[child + 1], members[child + 1], child) then child = child + 1 end
      if worse(s, m, child) then break end
      scores[i], members[i] = scores[child], members[child]
      i = child
    end
    scores[i], members[i] = s, m
  end

  local function rise(s, m)
    local i = top.size
    while i > 1 do
      local parent = math.floor(i / 2)
      if not worse(s, m, parent) then break end
      scores[i], members[i] = scores[parent], members[parent]
      i = parent
    end
    scores[i], members[i] = s, m
  end

  function top.enters(s, m)
    return not top.full or s > top.score or (s == top.score and name_before(top.member, m))
  end

  function top.put(s, m)
    if top.full then
      top.has[top.member] = nil
      sink(s, m)
    else
      top.size = top.size + 1
      rise(s, m)
      top.full = top.size == n
    end
    top.has[m] = true
    top.score, top.member = scores[1], members[1]
  end

  function top.sorted()
    local out = {}
    for i = 1, top.size do out[i] = {scores[i], members[i]} end
    table.sort(out, function(a, b) return a[1] > b[1] or (a[1] == b[1] and name_before(b[2], a[2])) end)
    return out
  end

  -- The members, best first.
  function top.members()
    local out = {}
    for i, item in ipairs(top.sorted()) do out[i] = item[2] end
    return out
  end

  -- What a later call restores it from: {score, member, ...}.
  function top.held()
    local out = {}
    for i, item in ipairs(top.sorted()) do out[2 * i - 1], out[2 * i] = item[1], item[2] end
    return out
  end

  function top.restore(held)
    for i = 1, #held, 2 do top.put(held[i], held[i + 1]) end
  end

  -- Those of the scored members that reach `least` and would be among the best are taken in, as far as they are records that
  -- exist and that `admitted` (a function from a list to a list, or nothing) lets through. Few are, so these costly
  -- questions come last.
  function top.offer(found, found_scores, least, admitted)
    local entering, score_of = {}, {}
    for i = 1, #found do
      local m = found[i]
      if found_scores[i] >= least and not top.has[m] and not score_of[m] and top.enters(found_scores[i], m) then
        entering[#entering + 1] = m
        score_of[m] = found_scores[i]
      end
    end
    if admitted then entering = admitted(entering) end
    for i = 1, #entering do
      local m = entering[i]
      if top.enters(score_of[m], m) and redis.call('EXISTS', m) == 1 then top.put(score_of[m], m) end
    end
  end

  -- The answer: {member, score as text, ...}, best first; and HMGET of these fields of each, unless there are more than
  -- `most`.
  function top.ranked(most, fields)
    local flat, rows, best = {}, {}, top.sorted()
    for i = 1, #best do
      flat[2 * i - 1], flat[2 * i] = best[i][2], string.format('%.17g', best[i][1])
      if #best <= most then
        local values = redis.pcall('HMGET', best[i][2], unpack(fields))
        rows[i] = (not values.err) and values or false
      end
    end
    return flat, rows
  end

  return top
end
