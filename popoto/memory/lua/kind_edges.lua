-- kind_edges: the weighted edges between the records of a model (popoto.memory.co_occurrence).
--
-- kind "g"  `key` is $CoOcF:{Model}:{field}, called B here; the nodes are names, by convention record keys:
--     B:{node}                       zset  neighbour -> weight of the edge to it
--     $CoOcR:{Model}:{field}:{node}  set   nodes with a one-way edge to this one: where it must be taken out when it leaves
-- Two-way edges stand in both nodes with one weight, and need no such set.
-- No payload: a save leaves the edges alone, a key migration renames the node in its neighbours, and a record that leaves
-- takes its edges along. The same for nodes named by the record's key without its model: `fact1` beside `Memory:fact1`.
local function node_key(base, node) return base .. ':' .. node end

local function split_base(base) return string.match(base, '^(.*)%$CoOcF:([^:]*):([^:]*)$') end

local function sources_key(base, node)
  local space, model, field = split_base(base)
  return space .. '$CoOcR:' .. model .. ':' .. field .. ':' .. node
end

-- The names of a record as a node: its key; without the model and, where that is one part, without escapes; with them.
local function names_of(base, rk)
  local space, model = split_base(base)
  local short = string.sub(rk, #space + #model + 2)
  local plain = short
  if not string.find(short, ':', 1, true) then
    plain = string.gsub(string.gsub(short, '{&#58;}', ':'), '/(.)', '%1')
  end
  return {rk, plain, short}
end

local function forget_node(base, node)
  local key, sources = node_key(base, node), sources_key(base, node)
  local targets = redis.pcall('ZRANGE', key, 0, -1)
  for i = 1, #targets do
    redis.pcall('ZREM', node_key(base, targets[i]), node)
    redis.pcall('SREM', sources_key(base, targets[i]), node)
  end
  local from = redis.pcall('SMEMBERS', sources)
  for i = 1, #from do redis.pcall('ZREM', node_key(base, from[i]), node) end
  redis.call('DEL', key, sources)
end

local function rename_node(base, old, new)
  local key, sources = node_key(base, old), sources_key(base, old)
  local edges = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #edges, 2 do
    local target, weight = edges[i], edges[i + 1]
    redis.call('ZADD', node_key(base, new), weight, target)
    if redis.pcall('ZREM', node_key(base, target), old) == 1 then
      redis.call('ZADD', node_key(base, target), weight, new)
    end
    if redis.pcall('SREM', sources_key(base, target), old) == 1 then
      redis.call('SADD', sources_key(base, target), new)
    end
  end
  local from = redis.call('SMEMBERS', sources)
  for i = 1, #from do
    local there = node_key(base, from[i])
    local weight = redis.pcall('ZSCORE', there, old)
    if type(weight) == 'string' then
      redis.call('ZREM', there, old)
      redis.call('ZADD', there, weight, new)
      redis.call('SADD', sources_key(base, new), from[i])
    end
  end
  redis.call('DEL', key, sources)
end

kinds.g = {
  probe = function() end,
  check = function(_, key, rk, old_rk)
    return wrong_type(node_key(key, rk), 'zset') or wrong_type(node_key(key, old_rk), 'zset')
      or wrong_type(sources_key(key, rk), 'set') or wrong_type(sources_key(key, old_rk), 'set') or nil
  end,
  put = function(_, key, rk, _, old, _, old_rk)
    if not old or old_rk == rk then return end
    local before, now = names_of(key, old_rk), names_of(key, rk)
    for i = 1, #before do
      if before[i] ~= now[i] then rename_node(key, before[i], now[i]) end
    end
  end,
  drop = function(_, key, rk)
    for _, name in ipairs(names_of(key, rk)) do forget_node(key, name) end
  end,
  owner = function(place, base, member)
    local space, model = split_base(base)
    local node = not member and string.sub(place, #base + 2)
    return node and string.sub(node, 1, #space + #model + 1) == space .. model .. ':' and node or nil
  end,
  foreign = function(e, key, rk) return kinds.g.check(e, key, rk, rk) end,
  sweep = function(place, base)
    forget_node(base, string.sub(place, #base + 2))
    return 1
  end,
}

-- Names that stand for records must be stored ones; each of these gets the entry that takes its edges along. `records` is a
-- string of 1 (a record) and 0 for each node. Returns a refusal, or nil.
local function claim_nodes(slot, base, nodes, records)
  for i = 1, #nodes do
    if string.sub(records, i, i) == '1' and redis.call('EXISTS', nodes[i]) == 0 then
      return 'GONE ' .. nodes[i] .. ' is not stored (deleted or expired); nothing was written. save() it first.'
    end
  end
  for i = 1, #nodes do
    if string.sub(records, i, i) == '1' and redis.call('EXISTS', node_key(base, nodes[i])) == 0 then
      claim_entry(nodes[i], {slot, 'g', base, {}, false})
    end
  end
end

local function put_edge(base, source, target, weight, symmetric)
  redis.call('ZADD', node_key(base, source), weight, target)
  if symmetric then redis.call('ZADD', node_key(base, target), weight, source)
  else redis.call('SADD', sources_key(base, target), source) end
end

local function drop_edge(base, source, target, symmetric)
  redis.call('ZREM', node_key(base, source), target)
  if symmetric then redis.call('ZREM', node_key(base, target), source) end
  redis.call('SREM', sources_key(base, target), source)
end

-- Drop the weakest edges of a node (equal ones: the first by name) until `most` are left.
local function trim_node(base, node, most, symmetric)
  local key = node_key(base, node)
  local surplus = redis.call('ZCARD', key) - most
  if surplus <= 0 then return end
  local weakest = redis.call('ZRANGE', key, 0, surplus - 1)
  for i = 1, #weakest do drop_edge(base, node, weakest[i], symmetric) end
end
