-- link_edge: connect two nodes that are not connected yet; or make an edge heavier.
--
-- KEYS[1]  zset    the node of the source
-- KEYS[2]  zset    the node of the target
-- KEYS[3]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  B, the base of all nodes (kind_edges)
-- ARGV[2]  string  the field, which is also the name of its slot
-- ARGV[3]  string  source
-- ARGV[4]  string  target
-- ARGV[5]  string  which of the two name records, that must then be stored: '11', '10', '01' or '00'
-- ARGV[6]  float   'link': the weight of a new edge; an edge that exists keeps its own. 'add': what is added to the weight
-- ARGV[7]  string  'link' or 'add'
-- ARGV[8]  0 | 1   1 = edges go both ways
-- ARGV[9]  int     how many edges a node may have
-- ARGV[10] bytes   packed event of a model with an event stream (lib_event), or ''
-- ARGV[11] string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  the weight of the edge as text; '0' where it was the weakest of a full node and fell off again
-- errors   GONE, WRONGTYPE: nothing is written
-- cost     O(log n)
local before = answered(ARGV[11])
if before then return before end
local base, symmetric, most = ARGV[1], ARGV[8] == '1', tonumber(ARGV[9])
local refusal = wrong_type(KEYS[1], 'zset') or wrong_type(KEYS[2], 'zset')
  or (not symmetric and wrong_type(sources_key(base, ARGV[4]), 'set')) or nil
local event, told = ARGV[10] ~= '' and cmsgpack.unpack(ARGV[10])
if event and not refusal then
  told, refusal = event_log.begin(event, ARGV[3], string.sub(ARGV[5], 1, 1) == '1' and redis.call('EXISTS', ARGV[3]) == 1)
end
refusal = refusal or claim_nodes(ARGV[2], base, {ARGV[3], ARGV[4]}, ARGV[5])
if refusal then return redis.error_reply(refusal) end

local there = redis.call('ZSCORE', KEYS[1], ARGV[4])
local weight = there and tonumber(there)
if ARGV[7] == 'add' then weight = (weight or 0) + tonumber(ARGV[6])
elseif not weight then weight = tonumber(ARGV[6]) end
put_edge(base, ARGV[3], ARGV[4], string.format('%.17g', weight), symmetric)
trim_node(base, ARGV[3], most, symmetric)
if symmetric then trim_node(base, ARGV[4], most, true) end
if event then
  event_log.learnt(event, told, 'strengthen', {'source_pk', ARGV[3], 'target_pk', ARGV[4], 'delta', ARGV[6]})
end
local left = redis.call('ZSCORE', KEYS[1], ARGV[4])
return remember(ARGV[11], left and string.format('%.17g', weight) or '0')
