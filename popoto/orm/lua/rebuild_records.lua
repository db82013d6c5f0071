-- rebuild_records: make records occupy what their values say, each in one step; what is right is left alone.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed request:
--                    fields   of the hash, which the entries were made of
--                    records  list of {key, values of these fields as they were read, entries, payloads, shape}; see
--                             commit (shape false: none)
--                    prefix   what a record's key begins with
--                    most     entries, places and parts of payloads looked at before the call ends; the first record is
--                             always done
--
-- returns  for each record that was done, in order, 'done'; 'gone'; 'changed' when a field is not what was read (nothing is written for it); or
--          a list of sentences: all was done but the entries that they tell of
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing was written
-- cost     O(records * entries * log n)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local request = cmsgpack.unpack(ARGV[1])
local prefix = request.prefix
LIB_MAINTENANCE
local refusal = home_refusal()
if refusal then return refusal end

local function is_as_read(rk, values)
  local stored = redis.call('HMGET', rk, unpack(request.fields))
  for i = 1, #request.fields do
    if stored[i] ~= values[i] then return false end
  end
  return true
end

local function refused(e, key, rk, payload, old)
  return kinds[e[2]].probe(e, key) or kinds[e[2]].check(e, key, rk, rk, payload, old)
end

-- The stored entry is the wanted one, and lies where it should: what a kind counts must not be counted again.
local function is_right(old, e, lie, payload)
  if old[2] ~= e[2] or entry_key(old) ~= entry_key(e) or old[5] ~= e[5] then return false end
  return lie == true or (lie and (payload == nil or tonumber(lie) == payload))
end

-- Bring the entries of one record to what they should be; the sentences of those that cannot be. Where a key of another
-- type is in the way of a stored entry, its place is left as it is, and stays in the record's list.
local function rebuild(rk, entries, payloads, shape)
  local sentences, old_of, wanted, kept = {}, {}, {}, {}
  for _, old in ipairs(entries_of(rk) or {}) do
    local sentence = unknown_kind(old)
    if sentence then return {sentence} end
    old_of[old[1]] = old
  end
  for i, e in ipairs(entries) do
    wanted[e[1]] = true
    local old, key, payload, lie, foreign = old_of[e[1]], entry_key(e), payloads[i], false, nil
    if payload == false then payload = nil end
    looked_at = looked_at + (type(payload) == 'table' and 4 * #payload or 1) -- a part of a payload is some writes
    if old then lie, foreign = entry_lies(old, rk) end
    local sentence = foreign
    if not sentence then
      local stumbled
      sentence, stumbled = past_foreign(nil, e[3], refused, e, key, rk, payload, old)
      sentence = sentence or stumbled
    end
    if sentence then
      sentences[#sentences + 1] = sentence
      if old and string.sub(sentence, 1, 9) == 'WRONGTYPE' then kept[#kept + 1] = old
      elseif old then kinds[old[2]].drop(old, entry_key(old), rk) end
    elseif old and is_right(old, e, lie, payload) then kept[#kept + 1] = e
    else
      local here = not old or (old[2] == e[2] and entry_key(old) == key and not lie)
      if here and kinds[e[2]].mend then kinds[e[2]].mend(e, key, rk, payload)
      else replace_entry(e, key, rk, payload, old, rk) end
      kept[#kept + 1] = e
    end
  end
  for slot, old in pairs(old_of) do
    if string.sub(slot, 1, 1) == '+' then kept[#kept + 1] = old -- declared by no save (lib_commit)
    elseif not wanted[slot] then
      local _, sentence = entry_lies(old, rk)
      if sentence then
        sentences[#sentences + 1] = sentence
        kept[#kept + 1] = old
      else kinds[old[2]].drop(old, entry_key(old), rk) end
    end
  end
  local sentence = wrong_type(occupancy_key(rk), 'string')
  local at = redis.call('PEXPIRETIME', rk)
  if sentence then sentences[#sentences + 1] = sentence
  elseif shape and at < 0 and #sentences == 0 and #kept == #entries then
    occ_del(rk)
    implied().learn(home.order, shape)
  else occ_set(rk, kept) end
  redis.call('SADD', home.class, rk)
  redis.call('ZADD', home.order, 0, rk)
  if at >= 0 then redis.call('ZADD', home.expiry, at, rk) else redis.call('ZREM', home.expiry, rk) end
  return #sentences > 0 and sentences or 'done'
end

local out = {}
for i, record in ipairs(request.records) do
  local rk = record[1]
  if looked_at >= request.most then break end
  if redis.call('TYPE', rk).ok ~= 'hash' then out[i] = 'gone'
  elseif not is_as_read(rk, record[2]) then out[i] = 'changed'
  else out[i] = rebuild(rk, record[3], record[4], record[5]) end
end
return out
