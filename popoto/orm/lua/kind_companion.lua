-- kind_companion: data of the record's own in a hash shared by a partition: member -> bytes. It is learnt, so a save never
-- overwrites it: the payload is only what a record without data starts from. It follows the record to another partition
-- or key.
--
-- kind "h"  payload: the first value, as bytes
kinds.h = {
  probe = function(_, key) return wrong_type(key, 'hash') end,
  check = function() end,
  put = function(_, key, rk, payload, old, old_key, old_rk)
    if old and (old_key ~= key or old_rk ~= rk) then
      local value = redis.call('HGET', old_key, old_rk)
      if value then
        redis.call('HSET', key, rk, value)
        return
      end
    end
    if payload ~= nil then redis.call('HSETNX', key, rk, payload) end
  end,
  drop = function(_, key, rk) redis.call('HDEL', key, rk) end,
  owner = function(_, _, member) return member or nil end,
  type_of = function() return 'hash' end,
  places = function(_, key, rk) return {key, rk} end,
}
