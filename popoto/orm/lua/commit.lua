-- commit: save one record and every index entry of it in one atomic step; or refuse, and change nothing.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0: the order by name
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  -       sentinel of the same hash tag, never written: while a slot moves, the call is refused whole
-- ARGV[1]  bytes   packed plan, a map; all but hash and payload may be missing:
--                    guard    1 = the record must exist, 2 = it must not
--                    moved    the key that the record had before (key migration)
--                    hash     flat list: field, bytes, field, bytes...
--                    partial  true: slots that the plan does not name keep their entries
--                    payload  one for each entry; false = keep what is stored
--                    masks    partial only, a list for each entry: is the part the caller's (true) or the stored one's
--                    keeps    partial only, one for each entry: true = `kept` is the stored one's
--                    dropped  partial only: slots that lose their entry
--                    expire   {'px', ms from now}, {'at', ms}, {'persist'}; missing = leave
--                    commands what on_save hooks recorded, run last
-- ARGV[2]  bytes   packed list of entries (lib_record); of a full save it is the new occupancy to the letter
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  the number of hash fields that are new
-- errors   UNIQUE, EXISTS, MISSING, WRONGTYPE, UNKNOWNKIND: nothing is written. HOOK: the record is saved, a recorded
--          command failed
-- cost     O(fields + entries * log n)
local rk = KEYS[1]
local home = {class = KEYS[2], order = KEYS[3], expiry = KEYS[4]}
local token = ARGV[3]
local before = answered(token)
if before then return before end

local plan = cmsgpack.unpack(ARGV[1])
local entries = cmsgpack.unpack(ARGV[2])
local old_rk = plan.moved or rk
local held = redis.call('TYPE', old_rk).ok
local exists = held ~= 'none'

-- 1. Everything that can refuse.
if plan.guard == 1 and not exists then
  return redis.error_reply('MISSING ' .. old_rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() without update_fields to store the whole record again.')
elseif plan.guard == 2 and exists then
  return redis.error_reply('EXISTS ' .. rk .. ' already exists; nothing was written. ' ..
    'Choose another key, or load that record and change it.')
elseif plan.moved and redis.call('EXISTS', rk) == 1 then
  return redis.error_reply('EXISTS ' .. rk .. ' already exists; ' .. old_rk .. ' was not moved onto it and nothing ' ..
    'was written. Delete that record first, or choose another key.')
end
local expiring = redis.pcall('ZCARD', home.expiry) -- it also tells a wrong type, for a call less
local refusal = (exists and held ~= 'hash' and wrong_type(old_rk, 'hash')) or wrong_type(home.class, 'set')
  or wrong_type(home.order, 'zset') or (type(expiring) == 'table' and wrong_type(home.expiry, 'zset')) or nil
if refusal then return redis.error_reply(refusal) end

local blob = redis.call('GET', occupancy_key(old_rk))
local unchanged = blob == ARGV[2] and exists and not plan.moved and not plan.partial
local stored = (unchanged or not blob) and {} or cmsgpack.unpack(blob)
local old_of, staying = {}, {}
for i = 1, #stored do
  refusal = unknown_kind(stored[i])
  if refusal then return redis.error_reply(refusal) end
  old_of[stored[i][1]] = stored[i]
end
for i = 1, #entries do staying[entries[i][1]] = true end

local payloads, count = {}, #entries
for i = 1, count do
  if plan.payload[i] ~= false then payloads[i] = plan.payload[i] end
end
if plan.partial then
  local absent = {}
  for i = 1, count do
    local e, old = entries[i], old_of[entries[i][1]]
    if old then
      -- what the caller did not name is as the stored record has it, whatever the caller believes
      local known = plan.masks[i]
      for p = 1, #known do
        if not known[p] then e[4][p] = old[4][p] end
      end
      if plan.keeps[i] then e[5] = old[5] end
    end
    absent[i] = not old and plan.keeps[i] -- nothing is stored that could be kept
  end
  for i = count, 1, -1 do
    if absent[i] then
      table.remove(entries, i)
      count = count - 1
      for k = i, count do payloads[k] = payloads[k + 1] end
    end
  end
  for i = 1, #plan.dropped do staying[plan.dropped[i]] = true end
  for i = 1, #stored do
    if not staying[stored[i][1]] then entries[#entries + 1] = stored[i] end
  end
  staying = {}
  for i = 1, #entries do staying[entries[i][1]] = true end
  if plan.moved then count = #entries end
end
-- entries 1..count are written; those behind them stay as they lie

local keys = {}
for i = 1, count do
  local e = entries[i]
  keys[i] = entry_key(e)
  refusal = kinds[e[2]].probe(e, keys[i]) or kinds[e[2]].check(e, keys[i], rk, old_rk, payloads[i], unchanged and e or old_of[e[1]])
  if refusal then return redis.error_reply(refusal) end
end
local leaving = stored
if plan.moved then
  local _, left = stored_occupancy(rk)
  leaving = {unpack(stored)}
  for i = 1, #left do leaving[#leaving + 1] = left[i] end
end
for i = 1, #leaving do
  local e = leaving[i]
  refusal = unknown_kind(e) or kinds[e[2]].probe(e, entry_key(e))
  if refusal then return redis.error_reply(refusal) end
end

if blob and not exists then -- the record expired, and nobody has cleaned up yet: it is not to live on in the new one
  drop_record(old_rk, home)
  stored, old_of, unchanged = {}, {}, false
end

-- 2. Writes: first what the stored record occupies and the new one does not, then the new.
for i = 1, #stored do
  local e = stored[i]
  if not staying[e[1]] then kinds[e[2]].drop(e, entry_key(e), old_rk) end
end
if plan.moved then
  drop_record(rk, home) -- what an expired record of the new key has left
  if exists then redis.call('RENAME', old_rk, rk) end
  redis.call('SREM', home.class, old_rk)
  redis.call('ZREM', home.order, old_rk)
  redis.call('ZREM', home.expiry, old_rk)
  redis.call('DEL', occupancy_key(old_rk))
end
local created = 0
if #plan.hash > 0 then created = redis.call('HSET', rk, unpack(plan.hash)) end
redis.call('SADD', home.class, rk)
redis.call('ZADD', home.order, 0, rk)
for i = 1, count do
  local e = entries[i]
  replace_entry(e, keys[i], rk, payloads[i], unchanged and e or old_of[e[1]], old_rk)
end
if plan.partial then
  redis.call('SET', occupancy_key(rk), cmsgpack.pack(entries))
elseif not unchanged then
  redis.call('SET', occupancy_key(rk), ARGV[2])
end

-- 3. Expiry: what a TTL decides is counted on the server's clock.
local expire = plan.expire
if expire then
  if expire[1] == 'px' then redis.call('PEXPIRE', rk, expire[2])
  elseif expire[1] == 'at' then redis.call('PEXPIREAT', rk, expire[2])
  else redis.call('PERSIST', rk) end
end
if expire or plan.moved or expiring > 0 then
  local ttl = redis.call('PTTL', rk)
  if ttl >= 0 then redis.call('ZADD', home.expiry, server_ms() + ttl, rk)
  elseif ttl == -1 then redis.call('ZREM', home.expiry, rk) end
  reap(home)
end

-- 4. What hooks recorded.
local failed = plan.commands and run_recorded(plan.commands, rk, 'saved')
if failed then return remember_error(token, failed) end
return remember(token, created)
