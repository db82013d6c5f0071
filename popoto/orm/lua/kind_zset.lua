-- kind_zset: the record is a member of an ordered set, one a partition (SortedField, rank sets of the memory fields).
--
-- kind "z"  payload: the score, a number; nil keeps the stored score, wherever the old entry lies
kinds.z = {
  probe = function(_, key) return wrong_type(key, 'zset') end,
  check = function() end,
  put = function(_, key, rk, payload, old, old_key, old_rk)
    local score = payload
    if score == nil and old then
      if old_key == key and old_rk == rk then return end
      score = redis.call('ZSCORE', old_key, old_rk)
    end
    if score then redis.call('ZADD', key, score, rk) end
  end,
  drop = function(_, key, rk) redis.call('ZREM', key, rk) end,
}
