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
--                    known   false, or {documents, their words, documents that hold the first term, the second...} of all
--                            shards of the model: the statistics to score by instead of the index's own
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
-- MaxScore (Turtle and Flood, 1995) over sources in place of whole lists. The postings of a term lie in order of tf, and within
-- one tf from the shortest document to the longest, which is the order of what they give. A frequent term is split into a source
-- a tf: they are walked in order of how much a posting read takes off what an unseen record can reach, high tf of all terms first.
-- A record is scored where it is first met. One that is met in source i and in none before it can reach no more than what
-- its own tf and length give, and for each other term the most that an unread source gives at that length. Once that is
-- below the k-th best the source is left, for all behind are longer; once no unread source can reach it, all is done.
-- No document is shorter than a tf in it. Postings of an older layout hold no length: they stand last of their tf and
-- count as the shortest there is.
-- Bounds are sums in another order than scores: TOLERANCE keeps rounding from cutting off an equal.
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
local TOLERANCE = 1 - 1e-12
local LOOKUPS = 5 -- looked up at most in one call, a posting of the slice
local FEW = 256 -- a filter that leaves so few is always gathered
local LENGTHS = 4096 -- as in kind_bm25
local WHOLE = 128 -- the postings of a term with so few are one source
local LEVELS = 8 -- a higher tf has no source of its own

local q = cmsgpack.unpack(ARGV[1])
local k1, b = q.k1, q.b
local lengths = q.base .. ':dl'
local n = redis.call('ZCARD', lengths)
if n == 0 then return {false, {}, 0} end
local total = q.known and q.known[2] or tonumber(redis.call('GET', q.base .. ':total') or nil)
if q.known then n = q.known[1] end
local mean = total and total / n or tonumber(redis.call('GET', q.base .. ':avgdl') or nil)
if not mean or mean <= 0 then
  return redis.error_reply('BADQUERY the index ' .. q.base .. ' has ' .. n .. ' documents but no mean length. ' ..
    'Call BM25Field.recompute_stats(model, field).')
end
local shortest = tonumber(redis.call('ZRANGE', lengths, 0, 0, 'WITHSCORES')[2])

local function part(term, tf, length)
  return term.idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean))
end

local function most(term, tf, length) return part(term, tf, math.max(tf, length or shortest)) end

-- tf and length of a posting (kind_bm25); no length where it does not tell
local function read(score)
  local tf = math.floor(score)
  local length = LENGTHS - (score - tf) * LENGTHS
  return tf, length < LENGTHS and length or nil
end

local function count_from(key, score) return redis.call('ZCOUNT', key, score, '+inf') end

-- Postings of a term with low <= tf <= high; high = 0: no upper limit.
local function source_of(term, low, high)
  local from = high == 0 and 0 or count_from(term.key, high + 1)
  local source = {term = term, low = low, high = high, from = from, to = count_from(term.key, low), top = high}
  if high == 0 then
    source.top = term.df > 0 and read(score_number(redis.call('ZREVRANGE', term.key, 0, 0, 'WITHSCORES')[2])) or 0
  end
  if high > 0 and low == high and source.to > from then
    local last = redis.call('ZREVRANGE', term.key, source.to - 1, source.to - 1, 'WITHSCORES')
    source.by_length = select(2, read(score_number(last[2]))) ~= nil
  end
  return source
end

local function sources_of(term)
  if term.df <= WHOLE then return {source_of(term, 0, 0)} end
  local all = source_of(term, 0, 0)
  local highest, out = all.top, {}
  if highest > LEVELS then out[1] = source_of(term, LEVELS + 1, 0) end
  for tf = math.min(highest, LEVELS), 1, -1 do
    local source = source_of(term, tf, tf)
    if source.to > source.from then out[#out + 1] = source end
  end
  return out
end

-- In order of what a posting takes off the bound, a term's sources from the highest tf down: where a later one takes off
-- more, those before it are worth reading for its sake.
local function in_order(terms)
  local blocks = {}
  for _, term in ipairs(terms) do
    local sources, mine = sources_of(term), {}
    for i, source in ipairs(sources) do
      local after = sources[i + 1] and most(term, sources[i + 1].top) or 0
      local block = {gain = most(term, source.top) - after, size = source.to - source.from, source}
      while #mine > 0 and mine[#mine].gain * block.size <= block.gain * mine[#mine].size do
        local before = table.remove(mine)
        for j = 1, #block do before[#before + 1] = block[j] end
        before.gain, before.size = before.gain + block.gain, before.size + block.size
        block = before
      end
      mine[#mine + 1] = block
    end
    for _, block in ipairs(mine) do
      block.place = #blocks
      blocks[#blocks + 1] = block
    end
  end
  table.sort(blocks, function(x, y)
    local a, b = x.gain * y.size, y.gain * x.size
    return a > b or (a == b and x.place < y.place)
  end)
  local out = {}
  for _, block in ipairs(blocks) do
    for i = 1, #block do out[#out + 1] = block[i] end
  end
  return out
end

local asked, terms, postings = {}, {}, 0
for i = 1, #q.terms do
  local key = q.base .. ':inv:' .. q.terms[i]
  local df = redis.call('ZCARD', key)
  local all = q.known and q.known[i + 2] or df
  asked[i] = {key = key, df = df, place = i, idf = math.log((n - all + 0.5) / (all + 0.5) + 1), top = 0}
  if df > 0 then
    terms[#terms + 1] = asked[i]
    postings = postings + df
  end
end

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
        if tf[i] and length[i] then score[i] = (score[i] or 0) + part(asked[t], (read(tf[i])), length[i]) end
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

local sources, others = {}, {} -- others: the terms that may still add to a record first met in the source at hand

-- Make source `at` the one at hand. top of a term: the highest tf of its unread sources.
local function stand_at(at)
  for _, term in ipairs(terms) do term.top = 0 end
  for i = #sources, at, -1 do sources[i].term.top = sources[i].top end
  others = {}
  for _, term in ipairs(terms) do
    if term.top > 0 and sources[at] and term ~= sources[at].term then others[#others + 1] = term end
  end
  table.sort(others, function(x, y)
    local a, b = most(x, x.top), most(y, y.top)
    return a > b or (a == b and x.place < y.place)
  end)
  others.rest = {}
end

-- rest[i]: the most that others[i] and those behind it give to a document of this length
local function rest_at(length)
  local rest = others.rest[length]
  if not rest then
    rest = {[#others + 1] = 0}
    for i = #others, 1, -1 do rest[i] = rest[i + 1] + most(others[i], others[i].top, length) end
    others.rest[length] = rest
  end
  return rest
end

local function enter(candidates)
  local entering, floor = {}, top.full and top.score * TOLERANCE or -1
  for i = 1, #candidates do
    local c = candidates[i]
    if c.so_far >= floor and not top.has[c.member] then entering[#entering + 1] = c end
  end
  -- A term all of whose postings were read: who holds it was dealt with there, unless it was written between two slices.
  for _, term in ipairs(terms) do
    if #entering == 0 then return end
    if term.top == 0 then
      local found = scores_of(term.key, names_of(entering))
      for i = 1, #entering do
        local c = entering[i]
        if found[i] then c[term.place] = part(term, (read(found[i])), c.length) end
      end
    end
  end
  local passes = not everything and #entering > 0 and where.test(q.where, names_of(entering))
  for i = 1, #entering do
    local c, score = entering[i], 0
    for place = 1, #asked do
      if c[place] then score = score + c[place] end
    end
    if (not passes or passes[i]) and top.enters(score, c.member) and alive(c.member) then top.put(score, c.member) end
  end
end

-- The candidates of the source at hand. Each step asks only for those that may still be among the best.
local function admit(term, members, texts)
  local floor = top.full and top.score * TOLERANCE or -1
  local tf, length, unknown, places = {}, {}, {}, {}
  for i = 1, #members do
    tf[i], length[i] = read(score_number(texts[i]))
    if not length[i] or length[i] == LENGTHS - 1 then
      unknown[#unknown + 1] = members[i]
      places[#places + 1] = i
    end
  end
  if #unknown > 0 then
    local found = scores_of(lengths, unknown)
    for i = 1, #unknown do length[places[i]] = found[i] or nil end
  end
  local left = {}
  for i = 1, #members do
    local l = length[i]
    if l then
      local p = part(term, tf[i], l)
      if p + rest_at(l)[1] >= floor then
        left[#left + 1] = {member = members[i], length = l, so_far = p, [term.place] = p}
      end
    end
  end
  for j = 1, #others do
    if #left == 0 then return end
    local found, kept = scores_of(others[j].key, names_of(left)), {}
    for i = 1, #left do
      local c = left[i]
      if found[i] then
        local p = part(others[j], (read(found[i])), c.length)
        c[others[j].place] = p
        c.so_far = c.so_far + p
      end
      if c.so_far + rest_at(c.length)[j + 1] >= floor then kept[#kept + 1] = c end
    end
    left = kept
  end
  enter(left)
end

-- The most that the next posting of a source, and any behind it, gives by its own term.
local function ceiling(source, score)
  local tf, length = read(score)
  if source.by_length then return part(source.term, tf, math.max(tf, length)), length end
  return most(source.term, tf), shortest
end

-- True when nothing that is left of the source at hand can be among the best.
local function hopeless(source, walk)
  if not top.full then return false end
  local own, length = ceiling(source, walk.score)
  local rest = rest_at(length)[1]
  if own + rest < top.score * TOLERANCE then return true end
  if rest > 0 or own ~= top.score or name_before(top.member, walk.member) then return false end
  -- the next one would be an equal at best, with a name behind; so are all of its tf and length, and the next give less
  local lower = walk.beyond()
  return not lower or lower < source.low or (ceiling(source, lower)) < top.score * TOLERANCE
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

local first, position = 1, nil
if q.state then
  -- scored once more: the statistics, and these records, may have changed since the last slice
  first, position = q.state.at, q.state.position
  local flat = q.state.order
  for i = 1, #flat, 3 do sources[#sources + 1] = source_of(asked[flat[i]], flat[i + 1], flat[i + 2]) end
  offer(q.state.best)
else sources = in_order(terms) end
for at = first, #sources do
  local source = sources[at]
  local term = source.term
  stand_at(at)
  if top.full and most(term, term.top) + rest_at(shortest)[1] < top.score * TOLERANCE then break end
  local step = 32
  local walk = walk_of(term.key, false, at == first and position or nil, source.from, source.to)
  while not walk.done and not hopeless(source, walk) do
    if visited >= q.slice or (visited > 0 and lookups >= LOOKUPS * q.slice) then
      local order, best = {}, {}
      for _, s in ipairs(sources) do
        for _, value in ipairs({s.term.place, s.low, s.high}) do order[#order + 1] = value end
      end
      for i, pair in ipairs(top.sorted()) do best[i] = pair[2] end
      return answer({order, at, {walk.text, walk.member}, best})
    end
    local members, texts = walk.take(math.min(step, q.slice - visited))
    visited = visited + #members
    admit(term, members, texts)
    step = math.min(step * 2, 512)
  end
end
return answer()
