-- unlink_edge: remove the edge between two nodes.
--
-- KEYS[1]  zset    the node of the source
-- KEYS[2]  zset    the node of the target
-- KEYS[3]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  B, the base of all nodes (kind_edges)
-- ARGV[2]  string  source
-- ARGV[3]  string  target
-- ARGV[4]  0 | 1   1 = edges go both ways
-- ARGV[5]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1 if there was one, else 0
-- errors   WRONGTYPE: nothing is written
-- cost     O(log n)
local before = answered(ARGV[5])
if before then return before end
local refusal = wrong_type(KEYS[1], 'zset') or wrong_type(KEYS[2], 'zset')
if refusal then return redis.error_reply(refusal) end
local existed = redis.call('ZSCORE', KEYS[1], ARGV[3]) and 1 or 0
drop_edge(ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1')
return remember(ARGV[5], existed)
