-- kind_list: a list of the record's own, at rk::slot (ListField with a max_length).
--
-- kind "l"  payload: {same, elements}. same = the caller's list is the one it has read, so the stored one stays (others may
--           have pushed meanwhile) unless the record is written anew. nil: the caller has not read it; it stays.
-- The list expires with its record.
local function list_of(e, rk) return rk .. '::' .. e[1] end

kinds.l = {
  probe = function() end,
  check = function(e, _, rk, old_rk)
    return wrong_type(list_of(e, rk), 'list') or wrong_type(list_of(e, old_rk), 'list')
  end,
  put = function(e, _, rk, payload, old, _, old_rk)
    local key = list_of(e, rk)
    if old and old_rk ~= rk then
      redis.call('DEL', key)
      if redis.call('EXISTS', list_of(old, old_rk)) == 1 then redis.call('RENAME', list_of(old, old_rk), key) end
    end
    if payload == nil or (payload[1] and old) then return end
    redis.call('DEL', key)
    local elements = payload[2]
    for from = 1, #elements, 4000 do
      redis.call('RPUSH', key, unpack(elements, from, math.min(from + 3999, #elements)))
    end
  end,
  drop = function(e, _, rk) redis.call('DEL', list_of(e, rk)) end,
  expire = function(e, rk)
    local at = redis.call('PEXPIRETIME', rk)
    if at > 0 then redis.call('PEXPIREAT', list_of(e, rk), at) else redis.call('PERSIST', list_of(e, rk)) end
  end,
  places = function(e, _, rk)
    return redis.call('EXISTS', list_of(e, rk)) == 1 and {list_of(e, rk), false} or {}
  end,
}
