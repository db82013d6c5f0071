-- kind_cycles: what comes and goes with the calendar, and what builds up until it is dealt with (popoto.memory.cyclic).
--
-- `key` is the ordered set of touched times of the record's partition; beside it
--   kind "cy"  key:cycles    hash  record -> packed list of {period, amplitude, phase}, learnt from then on
--              key:cycles::{period}@{phase}   ordered set: record -> amplitude, those above 0
--              key:cycles::shapes             set of the {period}@{phase} that have one
--              payload: the definition, packed; kept: a digest of it. A new definition replaces what is learnt.
--   kind "pr"  key:pressure  hash  record -> packed {rate, last_resolved}
--              key:pressure::{rate}           ordered set: record -> last_resolved
--              key:pressure::rates            set of the {rate} that have one
--              payload: {rate, the time}. A save sets the rate; the time only where there is none.
local function exact(number) return string.format('%.17g', number) end

-- Bring a record's place in the ordered sets under `root` to `wanted`: name -> score.
local function rank_under(root, names, rk, had, wanted)
  for name in pairs(had) do
    if not wanted[name] then
      local key = root .. '::' .. name
      redis.call('ZREM', key, rk)
      if redis.call('EXISTS', key) == 0 then redis.call('SREM', names, name) end
    end
  end
  for name, score in pairs(wanted) do
    redis.call('ZADD', root .. '::' .. name, exact(score), rk)
    redis.call('SADD', names, name)
  end
end

-- How many of these ordered sets under `root` hold a record.
local function ranked_under(root, rk, names)
  local n = 0
  for name in pairs(names) do n = n + (redis.call('ZSCORE', root .. '::' .. name, rk) and 1 or 0) end
  return n
end

local function cycles_in(raw)
  local readable, cycles = pcall(cmsgpack.unpack, raw or '\144')
  return readable and type(cycles) == 'table' and cycles or {}
end

local function amplitudes_of(cycles)
  local amplitudes = {}
  for i = 1, #cycles do
    local c = cycles[i]
    if c[2] > 0 then
      local shape = exact(c[1]) .. '@' .. exact(c[3])
      amplitudes[shape] = (amplitudes[shape] or 0) + c[2]
    end
  end
  return amplitudes
end

local function set_cycles(key, rk, before, raw)
  local root = key .. ':cycles'
  if raw then redis.call('HSET', root, rk, raw) else redis.call('HDEL', root, rk) end
  rank_under(root, root .. '::shapes', rk, amplitudes_of(cycles_in(before)), amplitudes_of(cycles_in(raw)))
end

local function pressure_in(raw)
  local readable, data = pcall(cmsgpack.unpack, raw or '\192')
  if readable and type(data) == 'table' and type(data.rate) == 'number' and type(data.last_resolved) == 'number' then
    return data
  end
end

local function pressures_of(data) return data and {[exact(data.rate)] = data.last_resolved} or {} end

local function set_pressure(key, rk, before, data)
  local root = key .. ':pressure'
  if data then redis.call('HSET', root, rk, cmsgpack.pack(data)) else redis.call('HDEL', root, rk) end
  rank_under(root, root .. '::rates', rk, pressures_of(pressure_in(before)), pressures_of(data))
end

kinds.cy = {
  probe = function(_, key)
    return wrong_type(key .. ':cycles', 'hash') or wrong_type(key .. ':cycles::shapes', 'set')
  end,
  check = function() end,
  put = function(e, key, rk, payload, old, old_key, old_rk)
    local here = redis.call('HGET', key .. ':cycles', rk)
    local raw = here
    if old then raw = redis.call('HGET', old_key .. ':cycles', old_rk) end
    if not raw or (old and old[5] ~= e[5]) then raw = payload end
    if raw and (raw ~= here or not old) then set_cycles(key, rk, here, raw) end
  end,
  drop = function(_, key, rk) set_cycles(key, rk, redis.call('HGET', key .. ':cycles', rk), nil) end,
  owner = function(_, _, member) return member or nil end,
  type_of = function(place) return string.sub(place, -7) == ':cycles' and 'hash' or 'zset' end,
  places = function(_, key, rk) return {key .. ':cycles', rk} end,
  holds = function(_, key, _, place) return string.sub(place, 1, #key + 7) == key .. ':cycles' end,
  sweep = function(place, _, member)
    local raw = redis.call('HGET', place, member)
    local gone = 1 + ranked_under(place, member, amplitudes_of(cycles_in(raw)))
    set_cycles(string.sub(place, 1, -8), member, raw, nil)
    return gone
  end,
}

kinds.pr = {
  probe = function(_, key)
    return wrong_type(key .. ':pressure', 'hash') or wrong_type(key .. ':pressure::rates', 'set')
  end,
  check = function() end,
  put = function(_, key, rk, payload, old, old_key, old_rk)
    local here = redis.call('HGET', key .. ':pressure', rk)
    local data = pressure_in(old and redis.call('HGET', old_key .. ':pressure', old_rk) or here)
    local rate = payload and payload[1] or data and data.rate
    if not rate then return end
    local resolved = data and data.last_resolved or payload[2]
    local stands = pressure_in(here)
    if old and stands and stands.rate == rate and stands.last_resolved == resolved then return end
    set_pressure(key, rk, here, {rate = rate, last_resolved = resolved})
  end,
  drop = function(_, key, rk) set_pressure(key, rk, redis.call('HGET', key .. ':pressure', rk), nil) end,
  owner = function(_, _, member) return member or nil end,
  type_of = function(place) return string.sub(place, -9) == ':pressure' and 'hash' or 'zset' end,
  places = function(_, key, rk) return {key .. ':pressure', rk} end,
  holds = function(_, key, _, place) return string.sub(place, 1, #key + 9) == key .. ':pressure' end,
  sweep = function(place, _, member)
    local raw = redis.call('HGET', place, member)
    local gone = 1 + ranked_under(place, member, pressures_of(pressure_in(raw)))
    set_pressure(string.sub(place, 1, -10), member, raw, nil)
    return gone
  end,
}

-- Multiply the amplitudes of a record: within 0 and 100, below 0.01 they are 0. Returns its cycles; {} where it has none.
local function scale_cycles(e, rk, factor)
  local key = entry_key(e)
  local before = redis.call('HGET', key .. ':cycles', rk)
  local cycles = cycles_in(before)
  if #cycles == 0 then return cycles end
  for i = 1, #cycles do
    local a = math.max(0, math.min(100, cycles[i][2] * factor))
    cycles[i][2] = a < 0.01 and 0 or a
  end
  set_cycles(key, rk, before, cmsgpack.pack(cycles))
  return cycles
end

local function relieve(e, rk, rate, now)
  local key = entry_key(e)
  set_pressure(key, rk, redis.call('HGET', key .. ':pressure', rk), {rate = rate, last_resolved = now})
end

-- The stored entries of a record by their slots; nil when the record is gone.
local function slots_of(rk)
  if redis.call('EXISTS', rk) == 0 then return nil end
  local _, entries = stored_occupancy(rk)
  local by_slot = {}
  for i = 1, #entries do by_slot[entries[i][1]] = entries[i] end
  return by_slot
end

local function gone(rk)
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
