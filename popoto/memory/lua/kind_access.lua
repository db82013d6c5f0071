-- kind_access: when a record was read (popoto.memory.access).
--
-- kind "a"  `key` is $AT:{Model}:count, an ordered set: record -> how many of its reads are confirmed; only those that have
--           some. Beside it, with T = $AT:{Model}:
--     T:staged:{record}      list  times of the reads that are neither confirmed nor discarded, oldest first
--     T:access_log:{record}  list  times of the confirmed reads, oldest first; the newest ones only
--     T:meta:{record}        hash  access_count, last_accessed; staged_before: how many staged reads the list has lost
-- No payload: a save leaves all of it as it is, a key migration takes it along.
local function access_keys(key, rk)
  local T = string.sub(key, 1, -#':count' - 1)
  return T .. ':staged:' .. rk, T .. ':access_log:' .. rk, T .. ':meta:' .. rk
end

kinds.a = {
  probe = function(_, key) return wrong_type(key, 'zset') end,
  check = function() end,
  put = function(_, key, rk, _, old, old_key, old_rk)
    if not old or old_rk == rk then return end
    local from, to = {access_keys(old_key, old_rk)}, {access_keys(key, rk)}
    for i = 1, #from do
      if redis.call('EXISTS', from[i]) == 1 then redis.call('RENAME', from[i], to[i]) end
    end
    local count = redis.call('ZSCORE', old_key, old_rk)
    if count then redis.call('ZADD', key, count, rk) end
  end,
  drop = function(_, key, rk)
    redis.call('DEL', access_keys(key, rk))
    redis.call('ZREM', key, rk)
  end,
  owner = function(place, base, member)
    if place == base then return member or nil end
    return string.match(string.sub(place, #base - #'count' + 1), '^%l+_?%l*:(.*)$')
  end,
}

-- Stage one read of a record that is stored. A first read makes sure that the record's occupancy names all this: it may have
-- been stored before its model was tracked.
local function stage_read(key, rk, at, longest)
  local staged, _, meta = access_keys(key, rk)
  local length = redis.pcall('RPUSH', staged, at)
  if type(length) ~= 'number' then return end -- a foreign key in the way must not spoil a read
  if length > longest then
    redis.call('LTRIM', staged, -longest, -1)
    redis.call('HINCRBY', meta, 'staged_before', length - longest)
  elseif length == 1 and redis.call('EXISTS', meta) == 0 then
    claim_entry(rk, {'@access', 'a', key, {}, false})
  end
end

-- Move the staged reads to the log; returns how many they are.
local function confirm_reads(key, rk, longest)
  local staged, log, meta = access_keys(key, rk)
  local times = redis.call('LRANGE', staged, 0, -1)
  if #times == 0 then return 0 end
  local count = #times + (redis.call('HGET', meta, 'staged_before') or 0)
  for from = 1, #times, 4000 do
    redis.call('RPUSH', log, unpack(times, from, math.min(from + 3999, #times)))
  end
  redis.call('LTRIM', log, -longest, -1)
  redis.call('DEL', staged)
  redis.call('HDEL', meta, 'staged_before')
  redis.call('HSET', meta, 'last_accessed', times[#times])
  redis.call('ZADD', key, redis.call('HINCRBY', meta, 'access_count', count), rk)
  return count
end

local function discard_reads(key, rk)
  local staged, _, meta = access_keys(key, rk)
  redis.call('DEL', staged)
  redis.call('HDEL', meta, 'staged_before')
end

local function foreign_access_key(key, rk)
  local staged, log, meta = access_keys(key, rk)
  return wrong_type(key, 'zset') or wrong_type(staged, 'list') or wrong_type(log, 'list') or wrong_type(meta, 'hash')
end

kinds.a.foreign = function(_, key, rk) return foreign_access_key(key, rk) end
