-- lib_signals: the signals of a composite ranking, over the ordered sets that they walk.
--
-- signals_of(specs, keys, now, everyone)   returns signals, sets; `specs` as composite.lua has them, `keys`: its KEYS,
--                                          `everyone`: the size of the set of all records
--
-- A signal:  weight, number; sets; complete = every candidate has an entry
--   part_of(values, member)  its part of a member's score, from the member's scores in its sets (false: it is not in); nil
--                            when the signal does not hold the member
--   highest()                the most that it can be for somebody who is not met; nil when all were met
--   in_parts                 highest() is the sum of what its sets give: a member can be dropped after each of them
-- A set:  key, ascending, size, number, signal; once it is open, walk, at (score of the next one), far (of the last one)
--   high()                   what it gives to highest(); together with its `partner`, if it has one
--   cap(value, other)        the most that it gives for a member with this score. `other`: its score in the partner, if known
--   sure                     it holds every candidate, if its signal is complete
--   times                    cap(value) is this number times the value; nil where it is not
local function weighted(weight, score) return weight == 0 and 0 or weight * score end

-- weight * value, of one set.
local function plain_signal(signal, spec, set_at)
  local weight, set = signal.weight, set_at(spec[3], signal.weight < 0)
  signal.sets, signal.complete, signal.in_parts = {set}, spec[4], true
  set.times = weight
  function set.cap(value) return weighted(weight, value) end
  function set.high() return weighted(weight, set.at) end
  function signal.part_of(values) return values[1] and weighted(weight, values[1]) end
  function signal.highest()
    if set.walk.done then return nil end
    return weighted(weight, set.at)
  end
end

-- weight * base * factor(age), of two sets, or of one where all bases are 1.
local function decay_signal(signal, spec, set_at, now)
  local weight, rate, field = signal.weight, spec[6], spec[7]
  local decay = decay_of(now, rate)
  local factor = decay.factor
  local times, bases = set_at(spec[3], (rate < 0) ~= (weight < 0)), spec[4] > 0 and set_at(spec[4], weight < 0)
  signal.sets, signal.complete = {times, bases or nil}, spec[5]
  -- a base set that lacks members cannot bound them: records that were stored before it was kept
  local whole
  if bases then whole = bases.size >= times.size else whole = not field end
  signal.in_parts = whole
  times.sure = true
  times.needs_far = true
  if bases then bases.partner, times.partner, bases.needs_far, bases.sure = times, bases, true, whole end

  local max, min = math.max, math.min
  local far_high, far_low -- factors at the far end of the times
  local near, high, low -- factors of those who are not met, while `near` is the next time

  local function factors()
    if times.at ~= near then
      near = times.at
      if not far_high then far_high, far_low = decay.above(times.far), decay.below(times.far) end
      high, low = max(decay.above(near), far_high), min(decay.below(near), far_low)
    end
    return high, low
  end

  -- The most of weight * base * factor, between two bases and two factors.
  local function product(a, b, f, g)
    return max(weight * (a * f), weight * (a * g), weight * (b * f), weight * (b * g))
  end

  function times.high()
    if not whole then return math.huge end
    if weight == 0 then return 0 end
    local f, g = factors()
    if not bases then return max(weight * f, weight * g) end
    return product(bases.at, bases.far, f, g)
  end

  function times.cap(touched, base)
    local f = factor(touched)
    if base then return weighted(weight, base * f) end
    if weight == 0 then return 0 end
    return bases and product(bases.at, bases.far, f, f) or weight * f
  end

  if bases then
    bases.high = times.high
    function bases.cap(base, touched)
      if touched then return weighted(weight, base * factor(touched)) end
      if weight == 0 then return 0 end
      local f, g = factors()
      return max(weight * (base * f), weight * (base * g))
    end
  end

  function signal.part_of(values, member)
    local touched, base = values[1], bases and values[2]
    if not touched then return nil end
    if not base then base = field and member and base_number(redis.call('HGET', member, field)) or 1 end
    return weighted(weight, base * factor(touched))
  end

  function signal.highest()
    if times.walk.done or (whole and bases and bases.walk.done) then return nil end
    return times.high()
  end
end

-- Scores that came with the call.
local function given_signal(signal, spec)
  local scores, members, weight = {}, {}, signal.weight
  for i = 1, #spec[3], 2 do
    members[#members + 1] = spec[3][i]
    scores[spec[3][i]] = spec[3][i + 1]
  end
  signal.sets, signal.members = {}, members
  function signal.part_of(_, member) return scores[member] and weighted(weight, scores[member]) end
  function signal.highest() return nil end -- all of them are scored at the start
end

local function signals_of(specs, keys, now, everyone)
  local sets, signals, of_group = {}, {}, {[''] = everyone}

  for number = 1, #specs do
    local spec = specs[number]
    local kind = spec[1]
    local signal = {weight = spec[2], number = number}
    signals[number] = signal

    local function set_named(key, ascending)
      local set = {key = key, ascending = ascending, size = redis.call('ZCARD', key), number = #sets + 1, signal = signal}
      sets[#sets + 1] = set
      return set
    end
    local function set_at(place, ascending) return set_named(keys[place], ascending) end

    if kind == 'set' then plain_signal(signal, spec, set_at)
    elseif kind == 'given' then given_signal(signal, spec)
    else
      decay_signal(signal, spec, set_at, now)
      if kind == 'cyclic' then add_cycles(signal, signal.sets[1], now, set_named) end
    end
    if signal.complete then of_group[signal.complete] = math.max(of_group[signal.complete] or 0, signal.sets[1].size) end
  end

  for i = 1, #signals do
    local signal = signals[i]
    signal.complete = signal.complete and signal.sets[1].size >= of_group[signal.complete]
    if #signal.sets > 1 and not signal.complete then signal.in_parts = false end
  end
  return signals, sets
end
