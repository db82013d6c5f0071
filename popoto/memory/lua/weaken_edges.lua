-- weaken_edges: multiply the weights of all edges of a node; those that become too light are removed.
--
-- KEYS[1]  zset    the node
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  B, the base of all nodes (kind_edges)
-- ARGV[2]  string  the node's name
-- ARGV[3]  float   factor, 0 to 1
-- ARGV[4]  float   edges lighter than this are removed
-- ARGV[5]  0 | 1   1 = edges go both ways: the other side follows
-- ARGV[6]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  how many edges were removed
-- errors   WRONGTYPE: nothing is written
-- cost     O(edges of the node * log n)
local before = answered(ARGV[6])
if before then return before end
local refusal = wrong_type(KEYS[1], 'zset')
if refusal then return redis.error_reply(refusal) end
local base, node, factor, least, symmetric = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local edges = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local removed = 0
for i = 1, #edges, 2 do
  local weight = tonumber(edges[i + 1]) * factor
  if weight < least then
    drop_edge(base, node, edges[i], symmetric)
    removed = removed + 1
  elseif factor ~= 1 then
    put_edge(base, node, edges[i], string.format('%.17g', weight), symmetric)
  end
end
return remember(ARGV[6], removed)
