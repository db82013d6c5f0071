-- lib_record: what a record occupies, and how a record leaves.
--
-- A record lives in a hash `rk`. What it occupies is a list with one entry for each place in which an index knows the
-- record; lib_occupancy keeps it so that whoever finds the record gone (expired, deleted by hand) can still remove every
-- trace of it. An entry is
--   {slot, kind, base, parts, kept}
--   slot   names the entry within the record ("status", "relevance#base"); at most one entry a slot
--   kind   how it is written and removed: a table in `kinds`, one fragment (kind_*.lua) each
--   base   index key without its parts; the key is base:part1:part2...
--   kept   what removal needs beyond that (false when nothing)
--
-- A kind is a table of functions; `e` is an entry, `key` its index key, `rk` the member that stands for the record:
--   check(e, key, rk, old_rk, payload, old)   a sentence when the entry may not be written (before the first write), or nil
--   put(e, key, rk, payload, old, old_key, old_rk)   write it. payload = nil: keep what `old`, the stored entry of the
--                                        same slot, has (it may lie in another key and under another member). Of a
--                                        set: returns 1 where the record was no member
--   drop(e, key, rk)                     remove it. Of a set: returns 0 where the record was no member
--   probe(e, key)                        a sentence when a key of it holds another type, or nil
--   expire(e, rk)                        give what is the record's own its expiry, or none. A kind without such data has no
--                                        such function
--   unique_place(e, key)                 where only one record may have it: a text that names the place; else nil. A kind
--                                        without unique entries has no such function
-- and, where its places are more than the record's membership in `key`, what lib_maintenance asks: owner, places, holds...
--
-- The fragments stand in functions, `lazy[kind]`, which run when their kind is first asked for: a save should not pay for
-- kinds that its model does not have.
local lazy = {}
local kinds = setmetatable({}, {__index = function(known, kind)
  if lazy[kind] then
    lazy[kind]()
    return rawget(known, kind)
  end
end})

local function entry_key(e)
  local key = e[3]
  for i = 1, #e[4] do key = key .. ':' .. e[4][i] end
  return key
end

local function wrong_type(key, expected)
  local found = redis.call('TYPE', key).ok
  if found ~= expected and found ~= 'none' then
    return 'WRONGTYPE the key ' .. key .. ' holds a ' .. found .. ' where the index keeps a ' .. expected ..
      '; nothing was written. Move that key away, then run rebuild_indexes().'
  end
end

LIB_OCCUPANCY

local function unknown_kind(e)
  if not kinds[e[2]] then
    return 'UNKNOWNKIND the stored record has an index entry of kind "' .. e[2] ..
      '", which this process does not know; nothing was written. Import the module that defines its field.'
  end
end

-- Write entry `e` in place of `old`, the stored entry of its slot (nil: none). `put` reads what it keeps from the old place;
-- then that place is cleared. Returns true where the record was not a member of it, of a set.
local function replace_entry(e, key, rk, payload, old, old_rk)
  local old_key = old and entry_key(old)
  if old and old[2] ~= e[2] then
    kinds[old[2]].drop(old, old_key, old_rk)
    old, old_key = nil, nil
  end
  local added = kinds[e[2]].put(e, key, rk, payload, old, old_key, old_rk)
  if old and (old_key ~= key or old_rk ~= rk) then return kinds[e[2]].drop(old, old_key, old_rk) == 0 end
  return added == 1
end

-- A sentence when a key that the removal of the record writes holds another type, or its kind is unknown; or nil. And the
-- record's entries where they are implied: nothing that happens to other records changes those.
local function refused_removal(rk)
  local refusal, known, entries = wrong_type(rk, 'hash'), stored_occupancy(rk, true)
  for i = 1, #entries do
    local e = entries[i]
    refusal = refusal or unknown_kind(e) or kinds[e[2]].probe(e, entry_key(e))
  end
  return refusal, known == '' and entries or nil
end

-- Remove every trace of the record; `home` names the model's own keys, `entries` is what it occupies, where that is
-- implied (nil: it is read). Returns 1 if its hash existed.
local function drop_record(rk, home, entries)
  local listed = not entries
  if listed then
    local read, _, stored = pcall(stored_occupancy, rk, true) -- in the midst of writes a list that cannot be read stops nothing
    entries = read and stored or {}
  end
  for i = 1, #entries do
    local e = entries[i]
    if kinds[e[2]] then kinds[e[2]].drop(e, entry_key(e), rk) end
  end
  redis.call('SREM', home.class, rk)
  redis.call('ZREM', home.order, rk)
  redis.call('ZREM', home.expiry, rk)
  if listed then redis.call('DEL', occupancy_key(rk)) end
  return redis.call('DEL', rk)
end

local function server_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Remove what expired records left, at most 100 a write. A due member that lives after all (PERSIST, a later TTL) is
-- put right instead.
local function reap(home)
  if redis.call('ZCARD', home.expiry) == 0 then return end
  local due = redis.call('ZRANGEBYSCORE', home.expiry, '-inf', server_ms(), 'LIMIT', 0, 100)
  for i = 1, #due do
    local at = redis.call('PEXPIRETIME', due[i])
    if at == -2 then drop_record(due[i], home)
    elseif at == -1 then redis.call('ZREM', home.expiry, due[i])
    else redis.call('ZADD', home.expiry, at, due[i]) end
  end
end

-- In a batch, which asks of every record before it writes the first (lib_commit): what those before this one take and give
-- up. owner: place -> record, left: place \0 record -> true. nil outside of a batch.
local claims

-- The living record that has a unique place, other than `rk` itself; `owners` are those that the index names.
local function living_owner(place, owners, rk, old_rk)
  for i = 1, #owners do
    local owner = owners[i]
    if owner ~= rk and owner ~= old_rk and not (claims and claims.left[place .. '\0' .. owner])
      and redis.call('EXISTS', owner) == 1 then return owner end
  end
  local taken = claims and claims.owner[place]
  if taken and taken ~= rk and taken ~= old_rk then return taken end
end

-- A repeat of a call whose reply was cut is answered from the token that the first run left.
local function answered(token)
  if token == '' then return nil end
  local packed = redis.call('GET', token)
  if not packed then return nil end
  local reply = cmsgpack.unpack(packed)
  return type(reply) == 'table' and reply.err and redis.error_reply(reply.err) or reply
end

local function remember(token, reply)
  if token ~= '' then redis.call('SET', token, cmsgpack.pack(reply), 'PX', 60000) end
  return reply
end

-- An error after the writes: what a repeat must get as well, instead of writing again.
local function remember_error(token, text)
  remember(token, {err = text})
  return redis.error_reply(text)
end

-- Run what hooks recorded, after the record is `done`; the sentence of the first failure, or nil.
local function run_recorded(commands, rk, done)
  for i = 1, #commands do
    local reply = redis.pcall(unpack(commands[i]))
    if type(reply) == 'table' and reply.err then
      return 'HOOK ' .. rk .. ' is ' .. done .. ', but the command ' .. commands[i][1] ..
        ' that a hook recorded failed: ' .. reply.err
    end
  end
end
