-- kind_prediction: what was expected of a record, and how far off that was (popoto.memory.prediction).
--
-- kind "p"  `key` is $PL:{Model}:meta, a hash: record -> packed map:
--     predicted         the packed dict, as bytes: what a user gave is never packed anew
--     recorded_at       Unix seconds
--     resolved          true once an outcome is known; then also resolution_mode, prediction_error, resolved_at (else false)
--     partition         the error stands in the ordered set $PL:{Model}:errors:{partition}, record -> error; false: nowhere
-- No payload: a save leaves it as it is, a key migration takes it along.
local function errors_key(key, partition)
  return string.sub(key, 1, -#'meta' - 1) .. 'errors:' .. partition
end

local function prediction_of(key, rk)
  local raw = redis.call('HGET', key, rk)
  if not raw then return nil end
  local readable, data = pcall(cmsgpack.unpack, raw)
  return readable and type(data) == 'table' and data or nil
end

kinds.p = {
  probe = function(_, key) return wrong_type(key, 'hash') end,
  check = function() end,
  put = function(_, key, rk, _, old, old_key, old_rk)
    if not old or old_rk == rk then return end
    local raw, data = redis.call('HGET', old_key, old_rk), prediction_of(old_key, old_rk)
    if raw then redis.call('HSET', key, rk, raw) end
    local error = data and data.partition and redis.call('ZSCORE', errors_key(old_key, data.partition), old_rk)
    if error then redis.call('ZADD', errors_key(key, data.partition), error, rk) end
  end,
  drop = function(_, key, rk)
    local data = prediction_of(key, rk)
    if data and data.partition then redis.call('ZREM', errors_key(key, data.partition), rk) end
    redis.call('HDEL', key, rk)
  end,
  owner = function(_, _, member) return member or nil end,
}

-- Note the outcome of an open prediction; false where there is none. `error` is a number, `now` Unix seconds.
local function resolve_prediction(key, rk, error, mode, now, partition)
  local data = prediction_of(key, rk)
  if not data or data.resolved then return false end
  if data.partition and data.partition ~= partition then
    redis.call('ZREM', errors_key(key, data.partition), rk)
  end
  data.resolved, data.resolution_mode, data.prediction_error = true, mode, error
  data.resolved_at, data.partition = now, partition
  redis.call('HSET', key, rk, cmsgpack.pack(data))
  redis.call('ZADD', errors_key(key, partition), string.format('%.17g', error), rk)
  return true
end
