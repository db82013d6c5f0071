-- explain: how select would answer a filter, and how much each of its conditions holds; reads no record.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map: that of select.lua, and
--                  conditions   list of conditions (lib_where) whose sizes are asked
--
-- returns  {records, due to expire, how, smallest, stretch, expected, not empty, sizes}: how, smallest, stretch and
--          expected as walk.plan has them; not empty: how many of the sets `shared` hold something; sizes: of the conditions,
--          at most; -1 where no index knows
-- errors   none of its own
-- cost     O(conditions * log n)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
LIB_ROWS
LIB_WALK
local q = cmsgpack.unpack(ARGV[1])
local shared = 0
for i = 1, #q.shared do
  if redis.call('SCARD', q.shared[i]) > 0 then shared = shared + 1 end
end
local sizes = {}
for i = 1, #q.conditions do
  local size = where.size(q.conditions[i])
  sizes[i] = size == math.huge and -1 or size
end
local now = where.due()
local due = now and redis.call('ZCOUNT', home.expiry, '-inf', now) or 0
local plan = walk.plan(q)
return {redis.call('SCARD', home.class), due, plan[1], plan[2], plan[3], plan[4], shared, sizes}
