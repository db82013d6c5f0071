-- increment: add to a number of a record, exactly, and move every index entry that depends on it.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  field of the hash
-- ARGV[2]  string  its type: int, float or Decimal (lib_number)
-- ARGV[3]  string  what to add, as text
-- ARGV[4]  bytes   packed list of the slots that depend on the field, each
--                    {slot, kind, base, parts, kept, positions, scored}
--                    parts      of a new entry, by the caller's values; false = the record has none unless one is stored
--                    kept       false; true = as of an ordered set of values: whether its score stands for another value
--                               than the number; nil = what the stored entry has
--                    positions  the parts that are the number's text
--                    scored     true = the payload is the number
-- ARGV[5]  bytes   packed event of a model with an event stream (lib_event), or ''
-- ARGV[6]  bytes   packed map of what depends on the record as a whole, which the caller has made with the sum in it; or ''
--                    seen      flat list: field, bytes (false for none), as the caller has them; where others are stored, STALE
--                    entries   list of {slot, kind, base, parts, kept} (lib_record)
--                    payloads  one for each entry; false = keep what is stored
--                    dropped   slots of which the record has no entry
-- ARGV[7]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  the new number as text
-- errors   GONE, CORRUPT, RANGE, STALE, UNINDEXED, UNIQUE, WRONGTYPE, UNKNOWNKIND: nothing is written
-- cost     O(digits + slots * log n)
LIB_NUMBER
local rk, field = KEYS[1], ARGV[1]
local home = {class = KEYS[2], order = KEYS[3], expiry = KEYS[4]}
local event = ARGV[5] ~= '' and cmsgpack.unpack(ARGV[5])
local whole = ARGV[6] ~= '' and cmsgpack.unpack(ARGV[6])
local token = ARGV[7]
local before = answered(token)
if before then return before end

-- 1. Everything that can refuse.
if redis.call('EXISTS', rk) == 0 then
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
local refusal = wrong_type(rk, 'hash') or wrong_type(home.expiry, 'zset')
if refusal then return redis.error_reply(refusal) end

local of_type = number[ARGV[2]]
local bytes = redis.call('HGET', rk, field) or '\192'
local stored = of_type.read(bytes)
if not stored then
  return redis.error_reply('CORRUPT ' .. rk .. ': the stored value of field ' .. field .. ' (' .. #bytes ..
    ' bytes) is no finite ' .. ARGV[2] .. '; nothing was written. Set the field and save() the record.')
end
local sum, reason = of_type.add(stored, of_type.parse(ARGV[3]))
if not sum then
  return redis.error_reply('RANGE ' .. rk .. ': ' .. field .. ' + ' .. string.sub(ARGV[3], 1, 40) ..
    ' cannot be stored: ' .. reason .. '; nothing was written.')
end
for i = 1, whole and #whole.seen or 0, 2 do
  if redis.call('HGET', rk, whole.seen[i]) ~= whole.seen[i + 1] then
    return redis.error_reply('STALE ' .. rk .. ' was changed since it was read (field ' .. whole.seen[i] .. '), and what ' ..
      'is known of it as a whole would be wrong; nothing was written. Read it again.')
  end
end

local slots = cmsgpack.unpack(ARGV[4])
local moves, leaving, dropped, blob, entries, occupancy_changes = {}, {}, {}, nil, nil, false

-- Note that entry `e` takes the place of `old` (nil: none); a sentence when it may not.
local function prepare(e, old, payload)
  local kind = e[2]
  local move = {entry = e, key = entry_key(e), payload = payload}
  if old then
    move.old_entry, move.old_key = old, entry_key(old)
    if old[2] == kind then move.old = old end
  end
  if move.key ~= move.old_key or not move.old or old[5] ~= e[5] then occupancy_changes = true end
  moves[#moves + 1] = move
  return unknown_kind(e) or kinds[kind].probe(e, move.key)
    or (old and kinds[old[2]].probe(old, move.old_key))
    or kinds[kind].check(e, move.key, rk, rk, payload, move.old)
end

if #slots > 0 or whole then
  blob, entries = stored_occupancy(rk, true)
  if not blob then
    return redis.error_reply('UNINDEXED ' .. rk .. ' was stored without a list of its index entries, so the one of ' ..
      field .. ' cannot be moved; nothing was written. Call save(), or rebuild_indexes() for all records.')
  end
  local place = {}
  for i = 1, #entries do place[entries[i][1]] = i end
  local part
  for i = 1, #slots do
    local name, kind, base, parts, kept, positions, scored = unpack(slots[i], 1, 7)
    local at = place[name]
    local old = at and entries[at]
    if old then
      refusal = unknown_kind(old)
      if refusal then return redis.error_reply(refusal) end
      if parts and #parts ~= #old[4] then
        return redis.error_reply('UNINDEXED ' .. rk .. ' is indexed under ' .. name .. ' as the model once said, not ' ..
          'as it says now; nothing was written. Call save(), or rebuild_indexes() for all records.')
      end
      -- the other parts are as the stored record has them, whatever the caller believes
      parts = {unpack(old[4])}
      if kept == nil then kept = old[5] end
    end
    if kept and scored then kept = not of_type.plain(sum) end
    if parts then
      for p = 1, #positions do
        if not part then
          part, reason = of_type.part(sum)
          if not part then
            return redis.error_reply('RANGE ' .. rk .. ': ' .. field .. ' + ' .. string.sub(ARGV[3], 1, 40) ..
              ' cannot be indexed: ' .. reason .. '; nothing was written.')
          end
        end
        parts[positions[p]] = part
      end
      refusal = prepare({name, kind, base, parts, kept or false}, old, scored and of_type.score(sum) or nil)
      if refusal then return redis.error_reply(refusal) end
      entries[at or #entries + 1] = moves[#moves].entry
    end
  end
  for i = 1, whole and #whole.entries or 0 do
    local e, payload = whole.entries[i], whole.payloads[i]
    local at = place[e[1]]
    refusal = (at and unknown_kind(entries[at])) or prepare(e, at and entries[at], payload ~= false and payload or nil)
    if refusal then return redis.error_reply(refusal) end
    entries[at or #entries + 1] = e
  end
  for i = 1, whole and #whole.dropped or 0 do dropped[whole.dropped[i]] = true end
  for i = #entries, 1, -1 do
    local e = entries[i]
    if dropped[e[1]] then
      refusal = unknown_kind(e) or kinds[e[2]].probe(e, entry_key(e))
      if refusal then return redis.error_reply(refusal) end
      leaving[#leaving + 1] = table.remove(entries, i)
    end
  end
end

local told
if event then
  if event.part == field then event.value = of_type.text(sum) end
  told, refusal = event_log.begin(event, rk, true)
  if refusal then return redis.error_reply(refusal) end
end

-- 2. Writes.
redis.call('HSET', rk, field, of_type.pack(sum))
for i = 1, #moves do
  local move = moves[i]
  replace_entry(move.entry, move.key, rk, move.payload, move.old_entry, rk)
end
for i = 1, #leaving do kinds[leaving[i][2]].drop(leaving[i], entry_key(leaving[i]), rk) end
if (occupancy_changes or #leaving > 0) and blob ~= '' then occ_set(rk, entries)
elseif occupancy_changes then -- it was implied, and read loosely
  local place, _, list = {}, stored_occupancy(rk)
  for i = 1, #list do place[list[i][1]] = i end
  for i = 1, #moves do
    local e = moves[i].entry
    list[place[e[1]] or #list + 1] = e
  end
  occ_set(rk, list)
end
if event then event_log.saved(event, told, rk) end
reap(home)
return remember(token, of_type.text(sum))
