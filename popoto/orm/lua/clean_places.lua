-- clean_places: remove the places of indexes that lead to no record, or to one that does not occupy them.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed request: what walk_places of lib_maintenance takes, and prefix
--
-- returns  for each job that was done {dead, stale} places removed, flat; {-1, type} for a key to be read in parts
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing was written
-- cost     O(members visited * entries of a record)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local request = cmsgpack.unpack(ARGV[1])
local prefix = request.prefix
LIB_MAINTENANCE
local refusal = home_refusal()
if refusal then return refusal end

-- What kinds that maintenance cannot walk (counts of a filter, proposals) keep of a record that is gone: its list of entries
-- is the last that tells, so they let go of it before the list does.
local function let_go(rk)
  for _, e in ipairs(entries_of(rk) or {}) do
    local kind, key = kinds[e[2]], entry_key(e)
    past_foreign(nil, key, function()
      local unwalked = kind and (not kind.owner or kind.places and #kind.places(e, key, rk) == 0)
      if unwalked and not kind.sweep then kind.drop(e, key, rk) end
    end)
  end
end

local removal = {set = 'SREM', zset = 'ZREM', hash = 'HDEL'}
local removed = walk_places(request, function(job, member, rk, held)
  local kind = job.kind
  if kind and kind.sweep then return kind.sweep(job[1], job[2], member, rk) end
  if member then redis.call(removal[held], job[1], member)
  else
    if job[4] and job[1] == occupancy_key(rk) then let_go(rk) end
    redis.call('DEL', job[1])
  end
  return 1
end)
forget_shapes(home.class, home.order)
return removed
