-- kind_set: the record is a member of a set, one set a value (KeyField, IndexedField, Relationship).
--
-- kind "s"  plain                     kind "u"  unique: the set has one living owner (that of None may have many)
-- kind "t"  with text lookups         kind "tu" both
--
-- Text lookups walk base::values, an ordered set (all scores 0) of the distinct texts, each as it stands in the key of its
-- set. A text is listed from its first record on, until its set is empty.
-- kept: true = None, which is no text and may be many records'.
local is_unique = {u = true, tu = true}
local is_text = {t = true, tu = true}
local set_kind = {}

function set_kind.probe(e, key)
  return wrong_type(key, 'set') or (is_text[e[2]] and wrong_type(e[3] .. '::values', 'zset')) or nil
end

function set_kind.unique_place(e, key) return is_unique[e[2]] and e[5] ~= true and key or nil end

function set_kind.check(e, key, rk, old_rk)
  local owner = set_kind.unique_place(e, key) and living_owner(key, redis.call('SMEMBERS', key), rk, old_rk)
  if owner then
    return 'UNIQUE ' .. e[1] .. ': the value ' .. string.sub(e[4][#e[4]], 1, 80) .. ' already exists (it belongs to ' ..
      string.sub(owner, 1, 120) .. '); nothing was written. Choose another value, or change that record first.'
  end
end

function set_kind.put(e, key, rk)
  if is_unique[e[2]] and e[5] ~= true then
    for _, owner in ipairs(redis.call('SMEMBERS', key)) do
      if owner ~= rk then redis.call('SREM', key, owner) end
    end
  end
  local added = redis.call('SADD', key, rk)
  if added == 1 and is_text[e[2]] and e[5] ~= true then redis.call('ZADD', e[3] .. '::values', 0, e[4][1]) end
  return added
end

function set_kind.drop(e, key, rk)
  local removed = redis.call('SREM', key, rk)
  if is_text[e[2]] and e[5] ~= true and redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', e[3] .. '::values', e[4][1])
  end
  return removed
end

-- What maintenance asks. A listed text whose set is gone leads nowhere; the others are no record's own.
function set_kind.owner(place, base, member)
  if not member or place ~= base .. '::values' then return member or nil end
  return redis.call('EXISTS', base .. ':' .. member) == 0 and place or nil
end

function set_kind.type_of(place, base) return place == base .. '::values' and 'zset' or 'set' end

function set_kind.places(e, key, rk)
  if not is_text[e[2]] or e[5] == true then return {key, rk} end
  return {key, rk, e[3] .. '::values', e[4][1]}
end

function set_kind.mend(e, key, rk)
  set_kind.put(e, key, rk)
  if is_text[e[2]] and e[5] ~= true then redis.call('ZADD', e[3] .. '::values', 0, e[4][1]) end
end

-- The text of a set that is emptied leaves with it.
function set_kind.sweep(place, base, member)
  local list = base .. '::values'
  if place == list then return redis.call('ZREM', place, member) end
  redis.call('SREM', place, member)
  if redis.call('EXISTS', place) == 0 and redis.call('TYPE', list).ok == 'zset' then
    redis.call('ZREM', list, string.sub(place, #base + 2))
  end
  return 1
end

kinds.s, kinds.u, kinds.t, kinds.tu = set_kind, set_kind, set_kind, set_kind
