-- select: filter, order, cut and read records in one call; what is large goes in slices.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed query, a map:
--                    where   tree of conditions (lib_where)
--                    order   key of the ordered set that gives the order
--                    low, high   only members with a score in this range (strings), or false
--                    desc    true: descending
--                    offset, limit   of the whole answer; limit -1 = none
--                    out     'fields', 'keys' or 'records' (lib_rows); 'distinct' = those of 'fields', each once; 'count'
--                    fields, marks   for 'fields' and 'distinct' (lib_rows)
--                    fields, clear, kept   for 'records' (lib_rows)
--                    after   false, or {score, member}: where the last slice stopped
--                    gather  matches up to this many are collected and sorted at once
--                    shared  sets that must be empty for the answer to be exact (kind_zset)
--                    slice, rows  members visited and (about) rows read at most in one call
--                    capped  true: not one row more than `rows`, and the places of the rows come back as well
--
-- returns  {'shared', set} when one of those sets is not empty; else {next, rows} or, capped, {next, rows, scores}:
--          next = {score, member, offset left, limit left} when there is more, else false; rows as lib_rows has them, for
--          'count' a number; scores of the rows in the order. 'records': {next, rows, how many were named, vanished ones too}
-- errors   none of its own
-- cost     gather: O(m log n) for m records in the smallest index set; walk: O(visited)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
LIB_WHERE
LIB_ROWS
LIB_WALK
local q = cmsgpack.unpack(ARGV[1])
for i = 1, #q.shared do
  if redis.call('SCARD', q.shared[i]) > 0 then return {'shared', q.shared[i]} end
end
if q.out == 'count' then
  local count, more = walk.count(q)
  return {more, count}
end
local members, more = walk.members(q)
if q.out == 'records' then return {more, read_records(q, members), #members} end
if not q.capped then return {more, read_rows(q, members)} end
local scores = {}
for i = 1, #members do scores[i] = redis.call('ZSCORE', q.order, members[i]) end
return {more, read_rows(q, members), scores}
