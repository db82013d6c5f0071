-- bm25_search: the exact best k of an inverted index (kind_bm25), without scoring all that holds a word of the query.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map:
--                    base    P, the key of the index
--                    terms   the query's terms, each once
--                    k1, b   the free parameters of BM25
--                    k       how many to find
--                    where   tree of conditions (lib_where)
--                    slice   postings visited at most in one call
--                    state   false, or what the last slice returned
--
-- returns  {state, {member, score, member, score...}, visited}: the best first, equal scores by descending name; scores as
--          text. state is false when the answer is complete.
-- errors   BADQUERY the index has documents but no statistics
-- cost     O(terms * log n + visited * terms), visited <= slice
--
--     idf(t)   = ln((N - df + 0.5) / (df + 0.5) + 1)
--     score(d) = sum over the terms in d:  idf * tf (k1 + 1) / (tf + k1 (1 - b + b * length / mean length))
--
-- MaxScore (Turtle and Flood, 1995), list by list: the terms stand in order of the most that each can give, and each
-- list of postings is walked from its highest tf. A record is scored in full where it is first met. What is met in list i
-- and in no list before it can reach no more than (most of i at this tf) + (most of all lists behind i): once that is
-- below the k-th best, the rest of the list is left unread; so are the lists behind it, once all they have left is too little.
-- The most that a tf can give is what it gives to the shortest document, and no document is shorter than its tf.
-- Bounds are sums in another order than scores: TOLERANCE keeps rounding from cutting off an equal.
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
local TOLERANCE = 1 - 1e-12
local LOOKUPS = 5 -- looked up at most in one call, a posting of the slice
local FEW = 256 -- a filter that leaves so few is always gathered

local q = cmsgpack.unpack(ARGV[1])
local k1, b = q.k1, q.b
local lengths = q.base .. ':dl'
local n = redis.call('ZCARD', lengths)
if n == 0 then return {false, {}, 0} end
local total = tonumber(redis.call('GET', q.base .. ':total') or nil)
local mean = total and total / n or tonumber(redis.call('GET', q.base .. ':avgdl') or nil)
if not mean or mean <= 0 then
  return redis.error_reply('BADQUERY the index ' .. q.base .. ' has ' .. n .. ' documents but no mean length. ' ..
    'Call BM25Field.recompute_stats(model, field).')
end
local shortest = tonumber(redis.call('ZRANGE', lengths, 0, 0, 'WITHSCORES')[2])

local function part(term, tf, length)
  return term.idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean))
end

local function most(term, tf) return part(term, tf, math.max(tf, shortest)) end

-- The terms as asked, and in the order of the walk. Later slices keep that order, whatever is written meanwhile.
local asked, terms, postings = {}, {}, 0
for i = 1, #q.terms do
  local key = q.base .. ':inv:' .. q.terms[i]
  local df = redis.call('ZCARD', key)
  local term = {key = key, df = df, place = i, most = 0}
  if df > 0 then
    term.idf = math.log((n - df + 0.5) / (df + 0.5) + 1)
    term.most = most(term, tonumber(redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]))
    postings = postings + df
  end
  asked[i] = term
  terms[i] = term
end
if q.state then
  for i = 1, #asked do terms[i] = asked[q.state.order[i]] end
else
  table.sort(terms, function(x, y) return x.most > y.most or (x.most == y.most and x.place < y.place) end)
end
local behind = {[#terms] = 0} -- behind[i]: the most that the lists behind i can add
for i = #terms, 2, -1 do behind[i - 1] = behind[i] + terms[i].most end

local due = where.due()
local everything = q.where[1] == 'all'
local top = top_of(q.k)
local visited, lookups = 0, 0

local function scores_of(key, members)
  lookups = lookups + #members
  local out = {}
  for from = 1, #members, CHUNK do
    local found = redis.call('ZMSCORE', key, unpack(members, from, math.min(from + CHUNK - 1, #members)))
    for i = 1, #found do out[from + i - 1] = found[i] and tonumber(found[i]) end
  end
  return out
end

local function alive(member) return not due or redis.call('EXISTS', member) == 1 end

-- Score these members outright.
local function offer(members)
  if #members == 0 then return end
  local length, score = scores_of(lengths, members), {}
  for t = 1, #asked do
    if asked[t].df > 0 then
      local tf = scores_of(asked[t].key, members)
      for i = 1, #members do
        if tf[i] and length[i] then score[i] = (score[i] or 0) + part(asked[t], tf[i], length[i]) end
      end
    end
  end
  for i = 1, #members do
    if score[i] and top.enters(score[i], members[i]) and alive(members[i]) then top.put(score[i], members[i]) end
  end
end

local function names_of(candidates)
  local out = {}
  for i = 1, #candidates do out[i] = candidates[i].member end
  return out
end

-- The candidates that list `at` met first. Each step asks only for those that may still be among the best.
local function admit(at, members, texts)
  local floor = top.full and top.score * TOLERANCE or -1
  local term, left = terms[at], {}
  local length = scores_of(lengths, members)
  for i = 1, #members do
    if length[i] then
      local p = part(term, tonumber(texts[i]), length[i])
      if p + behind[at] >= floor then
        left[#left + 1] = {member = members[i], length = length[i], so_far = p, [term.place] = p}
      end
    end
  end
  for j = at + 1, #terms do
    if #left == 0 then return end
    if terms[j].df > 0 then
      local tf, kept = scores_of(terms[j].key, names_of(left)), {}
      for i = 1, #left do
        local c = left[i]
        if tf[i] then
          local p = part(terms[j], tf[i], c.length)
          c[terms[j].place] = p
          c.so_far = c.so_far + p
        end
        if c.so_far + behind[j] >= floor then kept[#kept + 1] = c end
      end
      left = kept
    end
  end
  for j = 1, at - 1 do -- what stands in a list before this one was dealt with there
    if #left == 0 then return end
    if terms[j].df > 0 then
      local tf, kept = scores_of(terms[j].key, names_of(left)), {}
      for i = 1, #left do
        if not tf[i] then kept[#kept + 1] = left[i] end
      end
      left = kept
    end
  end
  local entering = {}
  for i = 1, #left do
    local c, score = left[i], 0
    for place = 1, #asked do
      if c[place] then score = score + c[place] end
    end
    c.score = score
    if top.enters(score, c.member) then entering[#entering + 1] = c end
  end
  local passes = not everything and #entering > 0 and where.test(q.where, names_of(entering))
  for i = 1, #entering do
    local c = entering[i]
    if (not passes or passes[i]) and top.enters(c.score, c.member) and alive(c.member) then top.put(c.score, c.member) end
  end
end

-- True when nothing that is left of list `at` can be among the best.
local function hopeless(at, walk)
  if not top.full then return false end
  local bound = most(terms[at], walk.score) + behind[at]
  if bound < top.score * TOLERANCE then return true end
  if behind[at] > 0 or bound ~= top.score or name_before(top.member, walk.member) then return false end
  -- the next one would be an equal at best, with a name behind; so are all of its tf, and lower ones give less
  local lower = walk.beyond()
  return not lower or most(terms[at], lower) < top.score * TOLERANCE
end

local function answer(state)
  local out, best = {}, state and {} or top.sorted()
  for i = 1, #best do
    out[2 * i - 1] = best[i][2]
    out[2 * i] = string.format('%.17g', best[i][1])
  end
  return {state or false, out, visited}
end

-- A filter that leaves few: score what it leaves.
if not everything and not q.state then
  local size = where.size(q.where)
  if size <= FEW or size <= q.slice and (q.where[1] == 'keys' or 2 * size <= postings) then
    local members = where.gather(q.where)
    visited = #members
    offer(members)
    return answer()
  end
end

local first, at_position = 1, nil
if q.state then
  -- scored once more: the statistics, and these records, may have changed since the last slice
  first, at_position = q.state.at, q.state.position
  offer(q.state.best)
end
local step = 64
for at = first, #terms do
  local term = terms[at]
  if term.df > 0 then
    if top.full and term.most + behind[at] < top.score * TOLERANCE then break end
    local walk = walk_of(term.key, false, at == first and at_position or nil)
    while not walk.done and not hopeless(at, walk) do
      if visited >= q.slice or lookups >= LOOKUPS * q.slice then
        local order, best = {}, {}
        for i = 1, #terms do order[i] = terms[i].place end
        for i, pair in ipairs(top.sorted()) do best[i] = pair[2] end
        return answer({order, at, {walk.text, walk.member}, best})
      end
      local members, texts = walk.take(math.min(step, q.slice - visited))
      visited = visited + #members
      admit(at, members, texts)
      step = math.min(step * 2, 512)
    end
  end
end
return answer()
