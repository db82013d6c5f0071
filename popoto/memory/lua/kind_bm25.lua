-- kind_bm25: the words of a record in an inverted index, with the statistics that BM25 needs (BM25Field).
--
-- kind "b"  `key` is $BM25:{Model}:{field}, called P here:
--     P:inv:{term}  zset    record -> how often the term occurs in it, plus (LENGTHS - length in words) / LENGTHS: from the
--                           highest score down, postings of one count stand from the shortest text to the longest.
--                           Texts of LENGTHS words and more count as LENGTHS - 1 long. Without a fraction: of an older
--                           layout, of any length
--     P:tf:{record} zset    term -> the same: what the record must take with it when it leaves
--     P:df          zset    term -> number of records that hold it
--     P:dl          zset    record -> length in words, repeats counted
--     P:n P:total   string  number of records, sum of all lengths: exact integers, so nothing drifts
--     P:avgdl       string  total / n, for readers of the layout
-- payload: {length, term, count, term, count...}, or nil: keep what `old` has
-- kept: a digest of the payload; where it is the stored one's, the index is left alone
--
-- Only what differs between the stored counts and the new ones is written. An empty index has no key at all.
do
  local LENGTHS = 4096 -- a power of two: every such score is exact
  local STEP = 3000 -- unpack() fails from 8,000 values

  local function counts_of(P, rk)
    local flat, counts = redis.call('ZRANGE', P .. ':tf:' .. rk, 0, -1, 'WITHSCORES'), {}
    for i = 1, #flat, 2 do counts[flat[i]] = tonumber(flat[i + 1]) end
    return counts
  end

  local function in_steps(command, key, values)
    for from = 1, #values, STEP do
      redis.call(command, key, unpack(values, from, math.min(from + STEP - 1, #values)))
    end
  end

  local function shift_df(key, terms, by)
    for from = 1, #terms, STEP do
      local to = math.min(from + STEP - 1, #terms)
      local df, set, gone = redis.call('ZMSCORE', key, unpack(terms, from, to)), {}, {}
      for i = from, to do
        local now = tonumber(df[i - from + 1] or 0) + by
        if now > 0 then
          set[#set + 1] = now
          set[#set + 1] = terms[i]
        else gone[#gone + 1] = terms[i] end
      end
      in_steps('ZADD', key, set)
      in_steps('ZREM', key, gone)
    end
  end

  local function sum_of_lengths(P)
    local total, at = 0, 0
    while true do
      local flat = redis.call('ZRANGE', P .. ':dl', at, at + STEP - 1, 'WITHSCORES')
      for i = 2, #flat, 2 do total = total + flat[i] end
      if #flat < 2 * STEP then return total end
      at = at + STEP
    end
  end

  -- What turns the stored counts into `wanted`: {flat counts to set, terms that leave, terms that are new, `wanted`}
  local function difference(P, rk, wanted)
    local stored, change = counts_of(P, rk), {set = {}, gone = {}, fresh = {}, wanted = wanted}
    for term, tf in pairs(wanted) do
      if stored[term] ~= tf then
        change.set[#change.set + 1] = tf
        change.set[#change.set + 1] = term
        if not stored[term] then change.fresh[#change.fresh + 1] = term end
      end
    end
    for term in pairs(stored) do
      if not wanted[term] then change.gone[#change.gone + 1] = term end
    end
    return change
  end

  local function apply(P, rk, change, length)
    local dl = P .. ':dl'
    local total = tonumber(redis.call('GET', P .. ':total') or nil)
    local before = tonumber(redis.call('ZSCORE', dl, rk) or 0)
    if total and before == length and #change.set == 0 and #change.gone == 0 then return end
    total = total or sum_of_lengths(P)
    local by_length = 1 - math.min(length, LENGTHS - 1) / LENGTHS
    if before == length then
      for i = 1, #change.set, 2 do redis.call('ZADD', P .. ':inv:' .. change.set[i + 1], change.set[i] + by_length, rk) end
    else
      for term, tf in pairs(change.wanted) do redis.call('ZADD', P .. ':inv:' .. term, tf + by_length, rk) end
    end
    for i = 1, #change.gone do redis.call('ZREM', P .. ':inv:' .. change.gone[i], rk) end
    in_steps('ZADD', P .. ':tf:' .. rk, change.set)
    in_steps('ZREM', P .. ':tf:' .. rk, change.gone)
    shift_df(P .. ':df', change.fresh, 1)
    shift_df(P .. ':df', change.gone, -1)
    if length > 0 then redis.call('ZADD', dl, length, rk) else redis.call('ZREM', dl, rk) end
    local n = redis.call('ZCARD', dl)
    if n == 0 then
      redis.call('DEL', P .. ':n', P .. ':total', P .. ':avgdl')
      return
    end
    total = total + length - before
    redis.call('MSET', P .. ':n', n, P .. ':total', string.format('%.0f', total),
      P .. ':avgdl', string.format('%.17g', total / n))
  end

  -- How many records hold a term, by its postings: where counts and postings did not go together.
  local function recount(P, term)
    local n = redis.call('ZCARD', P .. ':inv:' .. term)
    if n > 0 then redis.call('ZADD', P .. ':df', n, term) else redis.call('ZREM', P .. ':df', term) end
  end

  local function counts_in(payload)
    local wanted = {}
    for i = 2, #payload, 2 do wanted[payload[i]] = payload[i + 1] end
    return wanted
  end

  -- ZSCORE too: an index that was deleted by hand is built again by the next save
  local function unchanged(e, key, rk, payload, old)
    return old and old[5] == e[5] and (payload == nil
      or tonumber(redis.call('ZSCORE', key .. ':dl', rk) or -1) == payload[1])
  end

  -- `check` and `put` of one entry need the same difference, unless the record is dropped in between
  local found = {}

  kinds.b = {
    probe = function(_, key)
      return wrong_type(key .. ':dl', 'zset') or wrong_type(key .. ':df', 'zset') or wrong_type(key .. ':n', 'string')
        or wrong_type(key .. ':total', 'string')
    end,
    check = function(e, key, rk, old_rk, payload, old)
      local refusal = wrong_type(key .. ':tf:' .. rk, 'zset')
      if refusal or payload == nil or (old_rk == rk and unchanged(e, key, rk, payload, old)) then return refusal end
      local change = difference(key, rk, counts_in(payload))
      for i = 1, #change.fresh do
        refusal = wrong_type(key .. ':inv:' .. change.fresh[i], 'zset')
        if refusal then return refusal end
      end
      found[key .. '\0' .. rk] = change
    end,
    put = function(e, key, rk, payload, old, old_key, old_rk)
      local here = old_key == key and old_rk == rk
      if here and unchanged(e, key, rk, payload, old) then return end
      if payload ~= nil then
        apply(key, rk, found[key .. '\0' .. rk] or difference(key, rk, counts_in(payload)), payload[1])
      elseif old and not here then
        local length = tonumber(redis.call('ZSCORE', old_key .. ':dl', old_rk) or 0)
        apply(key, rk, difference(key, rk, counts_of(old_key, old_rk)), length)
      end
    end,
    drop = function(_, key, rk)
      found[key .. '\0' .. rk] = nil
      apply(key, rk, difference(key, rk, {}), 0)
    end,
    owner = function(place, base, member)
      local what = string.sub(place, #base + 1)
      if string.sub(what, 1, 4) == ':tf:' then return string.sub(what, 5) end
      return member and (what == ':dl' or string.sub(what, 1, 5) == ':inv:') and member or nil
    end,
    places = function(_, key, rk)
      local places = {key .. ':dl', rk, key .. ':tf:' .. rk, false}
      for term in pairs(counts_of(key, rk)) do
        places[#places + 1] = key .. ':inv:' .. term
        places[#places + 1] = rk
      end
      return places
    end,
    foreign = function(_, key, rk)
      return kinds.b.probe(_, key) or wrong_type(key .. ':tf:' .. rk, 'zset')
    end,
    type_of = function(place, base)
      local what = string.sub(place, #base + 1)
      return (what == ':n' or what == ':total' or what == ':avgdl') and 'string' or 'zset'
    end,
    holds = function(_, key, rk, place, member)
      local what = string.sub(place, #key + 1)
      if not member or what == ':dl' then return true end
      return redis.call('ZSCORE', key .. ':tf:' .. rk, string.sub(what, 6)) ~= false
    end,
    mend = function(_, key, rk, payload)
      local leaving, wanted = difference(key, rk, {}), counts_in(payload)
      apply(key, rk, leaving, 0)
      apply(key, rk, difference(key, rk, wanted), payload[1])
      for i = 1, #leaving.gone do recount(key, leaving.gone[i]) end
      for term in pairs(wanted) do recount(key, term) end
    end,
    sweep = function(place, base, member, rk)
      local what, gone = string.sub(place, #base + 1), 0
      if not member or what == ':dl' or redis.call('ZSCORE', base .. ':tf:' .. rk, string.sub(what, 6)) then
        local change = difference(base, rk, {}) -- all that the record has here, for its counts hang together
        for i = 1, #change.gone do
          if redis.call('ZSCORE', base .. ':inv:' .. change.gone[i], rk) then gone = gone + 1 end
        end
        if #change.gone > 0 then gone = gone + 1 end
        if redis.call('ZSCORE', base .. ':dl', rk) then gone = gone + 1 end
        apply(base, rk, change, 0)
      end
      if member and redis.call('ZREM', place, rk) == 1 then
        gone = gone + 1
        if what ~= ':dl' then recount(base, string.sub(what, 6)) end
      end
      return gone
    end,
  }
end
