-- lib_cyclic: cycles and pressure of a decaying signal (kind_cycles), for composite.lua.
--
-- add_cycles(signal, times, now, set_named)   puts their sets behind those of the signal, and what they give on top of its
--                                             part_of and highest; `times` is its set of touched times. high, cap and
--                                             times of the sets: see lib_signals
--
-- One set a cycle shape: amplitude, times cos(2 pi (now - phase) / period), which is one number for all who have the shape.
-- One set a pressure rate: last resolved, from which rate * days since grows the older it is. Who is in none of them has 0.
local function calendar_of(key, now)
  local found = {}
  for _, shape in ipairs(redis.call('SMEMBERS', key .. ':cycles::shapes')) do
    local period, phase = string.match(shape, '^(.*)@(.*)$')
    local swing = math.cos(2 * math.pi * (now - tonumber(phase)) / tonumber(period))
    found[#found + 1] = {key = key .. ':cycles::' .. shape, rises = swing, of = function(amplitude) return amplitude * swing end}
  end
  for _, rate in ipairs(redis.call('SMEMBERS', key .. ':pressure::rates')) do
    local slope = tonumber(rate)
    found[#found + 1] = {key = key .. ':pressure::' .. rate, rises = -slope, presses = true,
      of = function(resolved) return slope * math.max((now - resolved) / 86400, 0) end}
  end
  table.sort(found, function(a, b) return a.key < b.key end) -- the same in each slice
  return found
end

local function add_cycles(signal, times, now, set_named)
  local weight, found = signal.weight, calendar_of(times.key, now)
  local decayed, most_decayed, behind = signal.part_of, signal.highest, #signal.sets
  for i = 1, #found do
    local set = set_named(found[i].key, weight * found[i].rises < 0)
    set.partial = set.size < times.size
    found[i].set = set
    signal.sets[behind + i] = set
  end

  local function given(i, value) return weight == 0 and 0 or weight * found[i].of(value) end

  local function most_of(i)
    local set = found[i].set
    if set.walk.done then return 0 end
    local most = given(i, set.at)
    return set.partial and most < 0 and 0 or most
  end

  for i = 1, #found do
    if not found[i].presses then found[i].set.times = weight * found[i].rises end
    found[i].set.cap = function(value) return given(i, value) end
    found[i].set.high = function() return most_of(i) end
  end

  function signal.part_of(values, member)
    local part = decayed(values, member)
    if not part then return nil end
    local turning, pressing = 0, 0
    for i = 1, #found do
      local value = values[behind + i]
      if value and found[i].presses then pressing = pressing + given(i, value)
      elseif value then turning = turning + given(i, value) end
    end
    return part + turning + pressing
  end

  -- In the order in which part_of adds: then no rounding lifts a member above it.
  function signal.highest()
    local high = most_decayed()
    if not high then return nil end
    local turning, pressing = 0, 0
    for i = 1, #found do
      if found[i].set.walk.done and not found[i].set.partial then return nil end -- it holds everybody, so everybody is met
      local most = most_of(i)
      if found[i].presses then pressing = pressing + most else turning = turning + most end
    end
    return high + turning + pressing
  end
end
