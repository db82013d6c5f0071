-- lib_commit: the save of one record in two steps, so that a batch can ask of every record before it writes the first.
--
-- `home` {class, order, expiry} is set by the script that includes this fragment. It calls
--   refused_home()                 a sentence when one of the model's own keys holds another type, or nil
--   check_commit(rk, plan, packed)   everything that can refuse; returns the job, or nil and a sentence; writes nothing
--   write_commit(job)              returns how many fields of the hash are new
--   claim(job)                     in a batch, between the two: what the job takes and gives up counts for those after it
--   reap(home)                     once, after the last write
-- plan and packed are those of commit.lua.
local expiring

local function refused_home()
  expiring = redis.pcall('ZCARD', home.expiry) -- it also tells a wrong type, for a call less
  return wrong_type(home.class, 'set') or wrong_type(home.order, 'zset')
    or (type(expiring) == 'table' and wrong_type(home.expiry, 'zset')) or nil
end

-- Why the plan's guard does not let the record be written, or nil.
local function refused_by_guard(rk, old_rk, plan, exists)
  if plan.guard == 1 and not exists then
    return 'MISSING ' .. old_rk .. ' is not stored (deleted or expired); nothing was written. ' ..
      'Call save() without update_fields to store the whole record again.'
  elseif plan.guard == 2 and exists then
    return 'EXISTS ' .. rk .. ' already exists; nothing was written. ' ..
      'Choose another key, or load that record and change it.'
  elseif plan.moved and redis.call('EXISTS', rk) == 1 then
    return 'EXISTS ' .. rk .. ' already exists; ' .. old_rk .. ' was not moved onto it and nothing ' ..
      'was written. Delete that record first, or choose another key.'
  end
end

-- A field that is stored otherwise than the caller has it, of those that a partial save does not name; or nil.
local function changed_field(rk, seen)
  local names = {}
  for i = 1, #seen, 2 do names[#names + 1] = seen[i] end
  if #names == 0 then return nil end
  local stored = redis.call('HMGET', rk, unpack(names))
  for i = 1, #names do
    if stored[i] ~= seen[2 * i] then return names[i] end
  end
end

-- Fill in, of a partial save, what the caller did not name: it is as the stored record has it, whatever the caller
-- believes. `staying` holds the slots that the plan names. Returns how many entries are written; those behind them stay
-- as they lie. Or nil and a sentence.
local function complete(plan, entries, payloads, stored, old_of, staying, rk)
  local count, absent = #entries, {}
  for i = 1, count do
    local e, old, known = entries[i], old_of[entries[i][1]], plan.masks[i]
    for p = 1, #known do
      if not known[p] then
        if old and #old[4] ~= #known then
          return nil, 'UNINDEXED ' .. rk .. ' is indexed under ' .. e[1] .. ' as the model once said, not as it says ' ..
            'now; nothing was written. Call save(), or rebuild_indexes() for all records.'
        elseif old then e[4][p] = old[4][p]
        elseif plan.blind and not plan.keeps[i] then
          return nil, 'UNREAD ' .. rk .. ': the entry ' .. e[1] .. ' needs values that the caller has not read; nothing ' ..
            'was written. Load the record and save() it.'
        end
      end
    end
    if old and plan.keeps[i] then e[5] = old[5] end
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
  return plan.moved and #entries or count
end

-- A slot whose name begins with '+' is declared by no save: what another call has entered there stays. Returns how many
-- entries are written (those behind them stay as they lie), and the entries packed.
local function keep_undeclared(entries, packed, stored, staying, moved)
  local declared = #entries
  for i = 1, #stored do
    local e = stored[i]
    if string.sub(e[1], 1, 1) == '+' and not staying[e[1]] then
      entries[#entries + 1] = e
      staying[e[1]] = true
    end
  end
  if #entries > declared then packed = cmsgpack.pack(entries) end
  return moved and #entries or declared, packed
end

-- What the record occupies before a save: the bytes of its list (nil: none is known, '' = implied); the list, left empty
-- where it is `entries` already, and whether that is so; is it listed; the model's shapes, of a plan that has one; and
-- whether the list is what the hash tells, unproved. See lib_occupancy.
local function occupied(rk, exists, plan, packed, entries)
  local blob, shapes
  if plan.shape then
    local kept = redis.call('MGET', occupancy_key(rk), shapes_key(home.order))
    blob, shapes = kept[1], kept[2]
    if not blob and not exists then return nil, {}, false, false, shapes, false end -- if it was lost, SADD will tell
    if not blob and shapes == plan.shape and plan.texts and not plan.moved then
      if plan.partial then return '', implied().named_entries(rk, plan, entries, shapes), false, false, shapes, true end
      local stored
      for i = 1, #plan.texts, 2 do
        local e, text = entries[plan.texts[i]], text_in(redis.call('HGET', rk, plan.texts[i + 1]))
        if text ~= e[4][1] then
          stored = stored or {unpack(entries)}
          stored[plan.texts[i]] = {e[1], e[2], e[3], {text or ''}, false}
        end
      end
      return '', stored or {}, not stored, false, shapes, true
    end
  else
    blob = redis.pcall('GET', occupancy_key(rk)) -- of another type: refused by stored_occupancy
  end
  if blob == packed and exists and not plan.moved and not plan.partial then return blob, {}, true, true, shapes, false end
  local known, stored = stored_occupancy(rk)
  return known, stored, false, blob and true, shapes, false
end

local function check_commit(rk, plan, packed)
  local old_rk = plan.moved or rk
  local held = redis.call('TYPE', old_rk).ok
  local exists = held ~= 'none'
  local refusal = refused_by_guard(rk, old_rk, plan, exists) or (exists and held ~= 'hash' and wrong_type(old_rk, 'hash'))
  if refusal then return nil, refusal end
  local changed = plan.seen and exists and changed_field(old_rk, plan.seen)
  if changed then
    return nil, 'STALE ' .. old_rk .. ' was changed since it was read (field ' .. changed .. '), and what is known of it as ' ..
      'a whole would be wrong; nothing was written. Read it again, or save() it without update_fields.'
  end

  local entries = cmsgpack.unpack(packed)
  local blob, stored, unchanged, listed, shapes, follows = occupied(old_rk, exists, plan, packed, entries)
  local old_of, staying = {}, {}
  for i = 1, #stored do
    refusal = unknown_kind(stored[i])
    if refusal then return nil, refusal end
    old_of[stored[i][1]] = stored[i]
  end
  for i = 1, #entries do staying[entries[i][1]] = true end

  local payloads, count, declared = {}, #entries, #entries
  for i = 1, count do
    if plan.payload[i] ~= false then payloads[i] = plan.payload[i] end
  end
  if plan.partial then
    count, refusal = complete(plan, entries, payloads, stored, old_of, staying, old_rk)
    if refusal then return nil, refusal end
    staying = {}
    for i = 1, #entries do staying[entries[i][1]] = true end
  elseif exists then
    count, packed = keep_undeclared(entries, packed, stored, staying, plan.moved)
  end

  local keys = {}
  for i = 1, count do
    local e = entries[i]
    local kind, key = kinds[e[2]], entry_key(e)
    keys[i] = key
    refusal = kind.probe(e, key) or kind.check(e, key, rk, old_rk, payloads[i], unchanged and e or old_of[e[1]])
    if refusal then return nil, refusal end
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
    if refusal then return nil, refusal end
  end
  local event
  if plan.event then event, refusal = event_log.begin(plan.event, old_rk, exists) end -- see lib_event
  if refusal then return nil, refusal end
  return {rk = rk, old_rk = old_rk, plan = plan, packed = packed, entries = entries, count = count, keys = keys,
    payloads = payloads, exists = exists, blob = blob, listed = listed, unchanged = unchanged, stored = stored,
    old_of = old_of, staying = staying, event = event, shapes = shapes,
    follows = follows, implied = plan.shape and (plan.partial and follows or not plan.partial and #entries == declared)}
end

-- Let the records after this one in the batch see it as saved: their unique values may not be its, but may be those that
-- it gives up.
local function claim(job)
  for i = 1, #job.stored do
    local e = job.stored[i]
    local place = kinds[e[2]].unique_place and kinds[e[2]].unique_place(e, entry_key(e))
    if place then claims.left[place .. '\0' .. job.old_rk] = true end
  end
  for i = 1, #job.entries do
    local e = job.entries[i]
    local place = kinds[e[2]].unique_place and kinds[e[2]].unique_place(e, job.keys[i] or entry_key(e))
    if place then claims.owner[place] = job.rk end
  end
end

-- Set or lift the expiry, and note it: what a TTL decides is counted on the server's clock. Returns true when it has one.
local function write_expiry(rk, expire, moved)
  if expire then
    if expire[1] == 'px' then redis.call('PEXPIRE', rk, expire[2])
    elseif expire[1] == 'at' then redis.call('PEXPIREAT', rk, expire[2])
    else redis.call('PERSIST', rk) end
  end
  if expire or moved or expiring > 0 then
    local at = redis.call('PEXPIRETIME', rk)
    if at == -1 then redis.call('ZREM', home.expiry, rk)
    else redis.call('ZADD', home.expiry, math.max(at, 0), rk) end -- a date that is over: the hash is gone, and due
    return at ~= -1
  end
  return false
end

-- Keep what the record occupies now (lib_occupancy).
local function write_occupancy(job, expires)
  local rk, plan = job.rk, job.plan
  if not job.implied or expires then
    if plan.partial and job.follows then occ_set(rk, implied().entries(rk, true, job.shapes)) -- not all were read
    elseif plan.partial then occ_set(rk, job.entries)
    elseif not job.unchanged or not job.listed then redis.call('SET', occupancy_key(rk), job.packed) end
    return
  end
  if job.listed then occ_del(rk) end
  if job.shapes ~= plan.shape then implied().learn(home.order, plan.shape) end
end

local function write_commit(job)
  local rk, old_rk, plan, entries, keys = job.rk, job.old_rk, job.plan, job.entries, job.keys
  local unchanged, stored, old_of = job.unchanged, job.stored, job.old_of
  if job.blob and not job.exists then -- it expired, and nobody has cleaned up yet: it is not to live on in the new one
    drop_record(old_rk, home)
    stored, old_of, unchanged, job.unchanged = {}, {}, false, false
  end
  -- first what the stored record occupies and the new one does not, then the new
  for i = 1, #stored do
    local e = stored[i]
    if not job.staying[e[1]] then kinds[e[2]].drop(e, entry_key(e), old_rk) end
  end
  if plan.moved then
    drop_record(rk, home) -- what an expired record of the new key has left
    if job.exists then redis.call('RENAME', old_rk, rk) end
    redis.call('SREM', home.class, old_rk)
    redis.call('ZREM', home.order, old_rk)
    redis.call('ZREM', home.expiry, old_rk)
    redis.call('DEL', occupancy_key(old_rk))
  end
  local created = 0
  if #plan.hash > 0 then created = redis.call('HSET', rk, unpack(plan.hash)) end
  if redis.call('SADD', home.class, rk) == 0 and job.shapes and not job.exists and not job.blob then
    implied().drop_lost(rk, job.shapes) -- the hash was deleted by other means than the model
  end
  redis.call('ZADD', home.order, 0, rk)
  for i = 1, job.count do
    local e = entries[i]
    local absent = replace_entry(e, keys[i], rk, job.payloads[i], unchanged and e or old_of[e[1]], old_rk)
    if absent and job.follows then implied().take_out(e, rk) end
  end
  write_occupancy(job, write_expiry(rk, plan.expire, plan.moved))
  if plan.expire or plan.moved or expiring > 0 then
    for i = 1, #entries do
      local expire = kinds[entries[i][2]].expire
      if expire then expire(entries[i], rk) end
    end
  end
  if job.event then event_log.saved(plan.event, job.event, rk) end
  return created
end
