-- kind_zset: the record is a member of an ordered set, one a partition (SortedField, rank sets of the memory fields).
--
-- kind "z"  payload: the score, a number; nil keeps the stored score, wherever the old entry lies
--           kept: true = the value is not the one that the score stands for (2^53 + 1 has the score of 2^53). The set
--           key::shared names such records; while it is empty, equal scores are equal values.
kinds.z = {
  probe = function(e, key)
    return wrong_type(key, 'zset') or (e[5] and wrong_type(key .. '::shared', 'set')) or nil
  end,
  check = function() end,
  put = function(e, key, rk, payload, old, old_key, old_rk)
    if e[5] then redis.call('SADD', key .. '::shared', rk)
    elseif old and old[5] and old_key == key then redis.call('SREM', key .. '::shared', old_rk) end
    local score = payload
    if score == nil and old then
      if old_key == key and old_rk == rk then return end
      score = redis.call('ZSCORE', old_key, old_rk)
    end
    if score then redis.call('ZADD', key, score, rk) end
  end,
  drop = function(e, key, rk)
    redis.call('ZREM', key, rk)
    if e[5] then redis.call('SREM', key .. '::shared', rk) end
  end,
  owner = function(_, _, member) return member or nil end,
  type_of = function(place) return string.sub(place, -8) == '::shared' and 'set' or 'zset' end,
  places = function(e, key, rk)
    if e[5] then return {key, rk, key .. '::shared', rk} end
    return {key, rk}
  end,
  payload = function(_, key, rk) return redis.call('ZSCORE', key, rk) or nil end,
}
