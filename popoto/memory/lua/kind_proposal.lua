-- kind_proposal: a record was put before an agent unasked, and what the agent made of it is not known yet
-- (popoto.memory.proposals).
--
-- kind "rp"  base is $RP:{Model}:pending, the one part a partition: an ordered set, record -> when it was surfaced. The slot is
--            '+proposal:' and the partition: no save declares it. What a record is proposed in stands in its occupancy only.
local PROPOSAL = '+proposal:'

kinds.rp = {
  probe = function(_, key) return wrong_type(key, 'zset') end,
  check = function() end,
  put = function(_, key, rk, _, old, old_key, old_rk)
    local at = old and (old_key ~= key or old_rk ~= rk) and redis.call('ZSCORE', old_key, old_rk)
    if at then redis.call('ZADD', key, at, rk) end
  end,
  drop = function(_, key, rk) redis.call('ZREM', key, rk) end,
}

local function propose(base, partition, rk, at)
  redis.call('ZADD', base .. ':' .. partition, at, rk)
  claim_entry(rk, {PROPOSAL .. partition, 'rp', base, {partition}, false})
end

-- Remove the proposal of a record in a partition; 1 if there was one.
local function withdraw(base, partition, rk)
  local there = redis.call('ZREM', base .. ':' .. partition, rk)
  disclaim_entry(rk, PROPOSAL .. partition)
  return there
end

-- Remove the proposals of a record wherever they are; the number of them. Costs a read where there are none.
local function withdraw_everywhere(rk)
  local _, entries = stored_occupancy(rk)
  local left, gone = {}, 0
  for i = 1, #entries do
    local e = entries[i]
    if e[2] == 'rp' then gone = gone + redis.call('ZREM', entry_key(e), rk) else left[#left + 1] = e end
  end
  if #left < #entries then occ_set(rk, left) end
  return gone
end
