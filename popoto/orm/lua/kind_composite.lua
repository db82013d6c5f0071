-- kind_composite: the record is known by the values of several fields (Meta.indexes).
--
-- kind "x"   unique: the hash `base` holds digest -> rk, one living owner a combination. The digest is the first 16 hex
--            digits of the SHA-1 of part1:part2...
-- kind "xs"  the set base::part1:part2... holds the records of the combination
--
-- The parts are the fields' values. A record of which one is None has an entry (it tells the others to a later partial
-- save) and no place in the index.
local function is_whole(e)
  for i = 1, #e[4] do
    if e[4][i] == 'None' then return false end
  end
  return true
end

local function digest_of(e) return string.sub(redis.sha1hex(table.concat(e[4], ':')), 1, 16) end

local function set_of(e) return e[3] .. '::' .. table.concat(e[4], ':') end

-- The record that the hash names for the combination; nil where that record is known by another one.
local function named_owner(e)
  local owner = redis.call('HGET', e[3], digest_of(e))
  if not owner then return nil end
  local blob, entries = stored_occupancy(owner)
  for i = 1, #entries do
    if entries[i][1] == e[1] and entries[i][3] == e[3] and digest_of(entries[i]) == digest_of(e) then return owner end
  end
  return not blob and owner or nil -- a record without a list of its entries is believed
end

kinds.x = {
  probe = function(e) return wrong_type(e[3], 'hash') end,
  unique_place = function(e) return is_whole(e) and e[3] .. '\0' .. digest_of(e) or nil end,
  check = function(e, key, rk, old_rk)
    local place = kinds.x.unique_place(e)
    local owner = place and living_owner(place, {named_owner(e)}, rk, old_rk)
    if owner then
      return 'UNIQUE ' .. e[1] .. ': the combination (' .. string.sub(table.concat(e[4], ', '), 1, 160) ..
        ') already exists (it belongs to ' .. string.sub(owner, 1, 120) .. '); nothing was written. Choose another ' ..
        'combination, or change that record first.'
    end
  end,
  put = function(e, _, rk)
    if is_whole(e) then redis.call('HSET', e[3], digest_of(e), rk) end
  end,
  drop = function(e, _, rk)
    if is_whole(e) and redis.call('HGET', e[3], digest_of(e)) == rk then redis.call('HDEL', e[3], digest_of(e)) end
  end,
  owner = function(_, _, member, value) return member and value or nil end,
  type_of = function() return 'hash' end,
  places = function(e, _, rk)
    if not is_whole(e) then return {} end
    local owner = redis.call('HGET', e[3], digest_of(e))
    -- with another owner the place is not this record's: a member that is not there says so
    return {e[3], (not owner or owner == rk) and digest_of(e) or 'of another record'}
  end,
}

kinds.xs = {
  probe = function(e) return is_whole(e) and wrong_type(set_of(e), 'set') or nil end,
  check = function() end,
  put = function(e, _, rk)
    if is_whole(e) then redis.call('SADD', set_of(e), rk) end
  end,
  drop = function(e, _, rk)
    if is_whole(e) then redis.call('SREM', set_of(e), rk) end
  end,
  places = function(e, _, rk) return is_whole(e) and {set_of(e), rk} or {} end,
  owner = function(_, _, member) return member or nil end,
  type_of = function() return 'set' end,
}
