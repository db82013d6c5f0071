-- kind_set: the record is a member of a set, one set a value (KeyField, IndexedField, Relationship).
--
-- kind "s"  plain                     kind "u"  unique: the set has one living owner (that of None may have many)
-- kind "t"  with text lookups         kind "tu" both
--
-- Text lookups keep two ordered sets beside the value sets, all scores 0: base::lex holds value \0\0 rk, and base::rev
-- the same with the value's bytes reversed. A \0 in a value becomes \0\1, so that members sort as their values do.
-- kept: true = no text (None), false = the text is the last part, a string = the text where escaping changed it.
local function text_of(e)
  if e[5] == true then return nil end
  return e[5] or e[4][#e[4]]
end

local function lex_member(text, rk)
  if string.find(text, '\0', 1, true) then text = string.gsub(text, '%z', '\0\1') end
  return text .. '\0\0' .. rk
end

local function living_owner(key, rk, old_rk)
  for _, owner in ipairs(redis.call('SMEMBERS', key)) do
    if owner ~= rk and owner ~= old_rk and redis.call('EXISTS', owner) == 1 then return owner end
  end
end

local is_unique = {u = true, tu = true}
local is_text = {t = true, tu = true}
local set_kind = {}

function set_kind.probe(e, key)
  return wrong_type(key, 'set') or (is_text[e[2]] and
    (wrong_type(e[3] .. '::lex', 'zset') or wrong_type(e[3] .. '::rev', 'zset'))) or nil
end

function set_kind.check(e, key, rk, old_rk)
  local owner = is_unique[e[2]] and e[5] ~= true and living_owner(key, rk, old_rk)
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
  redis.call('SADD', key, rk)
  local value = is_text[e[2]] and text_of(e)
  if value then
    redis.call('ZADD', e[3] .. '::lex', 0, lex_member(value, rk))
    redis.call('ZADD', e[3] .. '::rev', 0, lex_member(string.reverse(value), rk))
  end
end

function set_kind.drop(e, key, rk)
  redis.call('SREM', key, rk)
  local value = is_text[e[2]] and text_of(e)
  if value then
    redis.call('ZREM', e[3] .. '::lex', lex_member(value, rk))
    redis.call('ZREM', e[3] .. '::rev', lex_member(string.reverse(value), rk))
  end
end

kinds.s, kinds.u, kinds.t, kinds.tu = set_kind, set_kind, set_kind, set_kind
