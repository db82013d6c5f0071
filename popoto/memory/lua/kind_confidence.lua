-- kind_confidence: what is learnt about how far a record is believed (popoto.memory.confidence).
--
-- kind "c"  companion hash base:parts, member -> packed {confidence, evidence_count, corroborations, contradictions}; beside
--           it base::rank:parts, an ordered set of the confidences. payload: the data a record without any starts from.
-- A save never overwrites what is learnt, and writes the true confidence into the record's hash, whatever the caller had.
local function confidence_rank_key(e)
  local key = e[3] .. '::rank'
  for i = 1, #e[4] do key = key .. ':' .. e[4][i] end
  return key
end

local function confidence_data(raw)
  local ok, data = pcall(cmsgpack.unpack, raw)
  if ok and type(data) == 'table' and type(data.confidence) == 'number' then return data end
end

kinds.c = {
  probe = function(e, key) return wrong_type(key, 'hash') or wrong_type(confidence_rank_key(e), 'zset') end,
  check = function() end,
  put = function(e, key, rk, payload, old, old_key, old_rk)
    local raw = old and redis.call('HGET', old_key, old_rk) or redis.call('HGET', key, rk)
    if not raw then raw = payload end
    if not raw then return end
    if old_key ~= key or old_rk ~= rk then redis.call('HSET', key, rk, raw) end
    local data = confidence_data(raw)
    if data then
      redis.call('ZADD', confidence_rank_key(e), data.confidence, rk)
      redis.call('HSET', rk, string.match(e[1], '^(.*)#data$'), cmsgpack.pack(data.confidence))
    end
  end,
  drop = function(e, key, rk)
    redis.call('HDEL', key, rk)
    redis.call('ZREM', confidence_rank_key(e), rk)
  end,
  owner = function(_, _, member) return member or nil end,
  places = function(e, key, rk) return {key, rk, confidence_rank_key(e), rk} end,
  type_of = function(place, base) return string.sub(place, #base + 1, #base + 6) == '::rank' and 'zset' or 'hash' end,
}

-- Fold a signal into the confidence whose place is entry `e`; `start` is the packed data of a record without any, with what
-- the start value counts as (prior_strength; missing = 0), `fall` true lets the confidence only fall. Returns the new one.
local function fold_signal(rk, e, field, signal, start, fall)
  local key = entry_key(e)
  local raw = redis.call('HGET', key, rk)
  local fresh = confidence_data(start)
  local prior = fresh.prior_strength or 0
  fresh.prior_strength = nil
  local data = raw and confidence_data(raw) or fresh
  local before = data.confidence
  local c = before + (signal - before) / math.sqrt(prior + data.evidence_count + 1)
  if c < 0 then c = 0 elseif c > 1 then c = 1 end
  if fall and c > before then c = before end
  data.confidence = c
  data.evidence_count = data.evidence_count + 1
  if signal >= 0.5 then data.corroborations = data.corroborations + 1
  else data.contradictions = data.contradictions + 1 end
  redis.call('HSET', key, rk, cmsgpack.pack(data))
  redis.call('ZADD', confidence_rank_key(e), c, rk)
  redis.call('HSET', rk, field, cmsgpack.pack(c))
  return c
end

-- The stored entry of a record's slot: where its companion data lies, whatever partition the caller believes.
local function slot_entry(rk, slot)
  local _, entries = stored_occupancy(rk)
  for i = 1, #entries do
    if entries[i][1] == slot then return entries[i] end
  end
end
