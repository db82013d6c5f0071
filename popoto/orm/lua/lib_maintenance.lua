-- lib_maintenance: does a place of an index lead to a record that occupies it, and what a record should occupy but does not.
--
-- A place is a member of a set, an ordered set or a hash, or a whole key. A kind (lib_record) says of its places what is
-- asked here; e is an entry, key its index key. A kind that says nothing is passed over: its keys are not walked, its
-- entries are right when the record's list of entries has them.
--   owner(place, base, member, value)   the record that a member stands for, nil for what stands for none (a statistic).
--                               member = false asks for the whole key; nil then means: ask member by member. value: of a
--                               hash field. Without this function no key of the kind is walked.
--   type_of(place, base)        the type of this key; one of another type is foreign and left alone. The rule: any type.
--   places(e, key, rk)          flat list {place, member, ...} of what the entry takes up for certain; member false = the
--                               whole key. The rule: nothing is certain.
--   holds(e, key, rk, place, member)   true when the entry takes up this place, or may. The rule: it is among its places,
--                               or the kind has no function `places`.
--   payload(e, key, rk)         what `put` would write, read back as text; nil = the model's values do not tell it
--   foreign(e, key, rk)         a sentence when a key that holds something of this record holds another type. The rule: `probe`
--   mend(e, key, rk, payload)   put again where some of its places are there already, or may be. The rule: `put`.
--   sweep(place, base, member, rk)     remove a place that leads nowhere; returns how many places went with it. The
--                               rule: that one. For kinds whose places depend on one another.
--
-- `home` {class, order, expiry} and `prefix`, what a record's key begins with, are set by the script.
local now_ms = server_ms()
local place_state, place_entries = {}, {}

local function home_refusal()
  local refusal = wrong_type(home.class, 'set') or wrong_type(home.order, 'zset') or wrong_type(home.expiry, 'zset')
  return refusal and redis.error_reply(refusal)
end

-- 'live'; 'due': expired, its leftovers are seen by no reader and reaped by later writes; 'dead'
local function state_of(rk)
  local state = place_state[rk]
  if not state then
    if string.sub(rk, 1, #prefix) == prefix and redis.call('TYPE', rk).ok == 'hash' then state = 'live'
    else
      local at = redis.call('ZSCORE', home.expiry, rk)
      state = at and tonumber(at) <= now_ms and 'due' or 'dead'
    end
    place_state[rk] = state
  end
  return state
end

-- Call f; where it stumbles over a key of another type than an index keeps there, `instead` is returned, and a sentence, for
-- which `about` says where.
local function past_foreign(instead, about, f, ...)
  local done, result = pcall(f, ...)
  if done then return result end
  local text = type(result) == 'table' and result.err or tostring(result)
  if not string.find(text, 'WRONGTYPE', 1, true) then error(result) end
  if string.find(text, 'nothing was written', 1, true) then return instead, text end
  return instead, 'WRONGTYPE a key of the index ' .. about .. ' holds another type than the index keeps there; nothing ' ..
    'was written. Move that key away, then run rebuild_indexes().'
end

-- The entries of a record; nil where it has no list of them, or none that can be read.
local function entries_of(rk)
  local entries = place_entries[rk]
  if entries == nil then
    local read, blob, stored = pcall(stored_occupancy, rk)
    entries = read and blob and stored or false
    place_entries[rk] = entries
  end
  return entries or nil
end

local function places_of(e, key, rk)
  local kind = kinds[e[2]]
  return kind.places and kind.places(e, key, rk) or {}
end

local function entry_holds(e, rk, place, member)
  local kind, key = kinds[e[2]], entry_key(e)
  if kind.holds then return kind.holds(e, key, rk, place, member) end
  if not kind.places then return true end
  local places = places_of(e, key, rk)
  for i = 1, #places, 2 do
    if places[i] == place and places[i + 1] == member then return true end
  end
  return false
end

local has_member = {
  set = function(place, member) return redis.call('SISMEMBER', place, member) == 1 end,
  zset = function(place, member) return redis.call('ZSCORE', place, member) ~= false end,
  hash = function(place, member) return redis.call('HEXISTS', place, member) == 1 end,
}

-- expected: the type that the key has, where its kind says that; another one is an error that names the key.
local function place_exists(place, member, expected)
  local held = redis.call('TYPE', place).ok
  if expected and held ~= 'none' and held ~= expected then error({err = wrong_type(place, expected)}) end
  if not member then return held ~= 'none' end
  return has_member[held] ~= nil and has_member[held](place, member)
end

local looked_at = 0 -- places and entries, in this call: what it costs

local function lies(e, rk)
  local kind, key = kinds[e[2]], entry_key(e)
  local places = places_of(e, key, rk)
  for i = 1, #places, 2 do
    looked_at = looked_at + 1
    if not place_exists(places[i], places[i + 1], kind.type_of and kind.type_of(places[i], e[3])) then return false end
  end
  return kind.payload and kind.payload(e, key, rk) or true
end

-- true or the payload's text when the entry lies whole where it should, else false; and a sentence where a key of it holds
-- another type.
local function entry_lies(e, rk)
  local kind = kinds[e[2]]
  looked_at = looked_at + 1
  local sentence = (kind.foreign or kind.probe)(e, entry_key(e), rk)
  if sentence then return false, sentence end
  return past_foreign(false, e[3], lies, e, rk)
end

-- The kind that a key belongs to, of those that share its base; nil when it is none's.
local function kind_of_place(job, held)
  for i = 1, #job[3] do
    local kind = kinds[job[3][i]]
    if kind and kind.owner and (not kind.type_of or kind.type_of(job[1], job[2]) == held) then return kind end
  end
end

-- What is wrong with one member of a job's key: 'dead', 'stale' or nil; and the record. Where the record has no readable
-- list of its entries, or one of a kind that nobody here knows, or a key of another type is in the way, nothing is said.
local function fault_in(job, member, value)
  local place, base, kind, rk = job[1], job[2], job.kind, job[4]
  if not rk then
    if kind then rk = kind.owner(place, base, member, value) else rk = member end
  end
  if not rk then return nil end
  local state = state_of(rk)
  if state ~= 'live' then return state == 'dead' and state or nil, rk end
  local entries = base and entries_of(rk)
  if not entries then return nil end
  for i = 1, #entries do
    local e = entries[i]
    if not kinds[e[2]] then
      if e[3] == base then return nil end
    elseif (e[3] == base or job[4]) and entry_holds(e, rk, place, member) then return nil end
  end
  return 'stale', rk
end

local function fault_of(job, member, value)
  local rk
  local what = past_foreign(nil, job[1], function()
    local found
    found, rk = fault_in(job, member, value)
    return found
  end)
  return what, rk
end

local members_of = {
  set = function(place) return redis.call('SMEMBERS', place), 1 end,
  zset = function(place) return redis.call('ZRANGE', place, 0, -1), 1 end,
  hash = function(place) return redis.call('HGETALL', place), 2 end,
}
local size_of_place = {set = 'SCARD', zset = 'ZCARD', hash = 'HLEN'}

-- Look at keys of indexes. request:
--   jobs   list of {place, base, kinds, owner, members}; base false: of the model itself (all records, order, expiry);
--          kinds: those that share the base, {} = any; owner: the record that the whole key belongs to, else false;
--          members: flat list as SMEMBERS, ZRANGE or HGETALL give it, of a key too large to be read here; else false
--   most   members visited in one call
-- act(job, member, rk, held) is called for each fault; its result is counted.
-- Returns one pair for each job that was done: {dead, stale}; {-1, type} for a key that is too large to be read here.
local function walk_places(request, act)
  local out, visited = {}, 0
  for at = 1, #request.jobs do
    local job = request.jobs[at]
    local place, given = job[1], job[5]
    local held = redis.call('TYPE', place).ok
    job.kind = kind_of_place(job, held)
    local whole = job[4] or (job.kind and past_foreign(nil, place, job.kind.owner, place, job[2], false))
    if #job[3] > 0 and not job.kind and not job[4] then held = 'none' end
    local dead, stale = 0, 0
    local function judge(member, value)
      visited = visited + 1
      local what, rk = fault_of(job, member, value)
      if not what or (given and not place_exists(place, member)) then return end
      local n = past_foreign(0, place, act, job, member, rk, held)
      if what == 'dead' then dead = dead + n else stale = stale + n end
    end
    if held ~= 'none' then
      if whole then judge(false)
      elseif members_of[held] then
        local size = given and #given or redis.call(size_of_place[held], place)
        if visited > 0 and visited + size > request.most then break end
        if not given and size > request.most then dead, stale = -1, held
        else
          local members, step = given, held == 'hash' and 2 or 1
          if not given then members, step = members_of[held](place) end
          for i = 1, #members, step do judge(members[i], step == 2 and members[i + 1]) end
        end
      end
    end
    visited = visited + 1
    out[#out + 1] = dead
    out[#out + 1] = stale
    if visited >= request.most then break end
  end
  return out
end
