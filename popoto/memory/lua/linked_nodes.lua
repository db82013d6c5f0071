-- linked_nodes: what one step along the edges leads to, from one node or from many.
--
-- KEYS[1]  -       sentinel of the nodes' hash tag, never written
-- ARGV[1]  bytes   packed map:
--                    base       B, the base of all nodes (kind_edges)
--                    nodes      flat list: node, its weight w as text...
--                    factor     what a step costs; a neighbour gets w * factor * weight of the edge
--                    least      lowest weight that counts, or false
--                    most       at most so many of the heaviest edges a node; -1 = all
--                    record     what a record's key begins with
--                    colons     how many colons a record's key has behind that
--
-- returns  flat list: neighbour, weight as text...; the neighbours of each node by descending weight, equal ones by descending
--          name. Of nodes and neighbours that name records, only stored ones count.
-- errors   none of its own
-- cost     O(nodes * log n + edges that count)
local q = cmsgpack.unpack(ARGV[1])
local out = {}

local function is_record(name)
  if string.sub(name, 1, #q.record) ~= q.record then return false end
  local _, colons = string.gsub(string.sub(name, #q.record + 1), ':', '')
  return colons == q.colons
end

local known = {}
local function lives(name)
  if known[name] == nil then known[name] = not is_record(name) or redis.call('EXISTS', name) == 1 end
  return known[name]
end

-- An edge this heavy at least can count: a little less than the exact bound, for the product below is rounded.
local function lightest(weight)
  local step = weight * q.factor
  if not q.least or q.least <= 0 then return '-inf' end
  if step <= 0 then return nil end
  return string.format('%.17g', q.least / step * (1 - 1e-12))
end

for i = 1, #q.nodes, 2 do
  local key, weight = q.base .. ':' .. q.nodes[i], tonumber(q.nodes[i + 1])
  local least = lightest(weight)
  local at, taken = 0, 0
  while least and taken ~= q.most and lives(q.nodes[i]) do
    local wanted = q.most < 0 and 1000 or math.min(1000, q.most - taken)
    local edges = redis.call('ZREVRANGEBYSCORE', key, '+inf', least, 'WITHSCORES', 'LIMIT', at, wanted)
    for j = 1, #edges, 2 do
      local reached = weight * q.factor * tonumber(edges[j + 1])
      if (not q.least or reached >= q.least) and lives(edges[j]) then
        out[#out + 1] = edges[j]
        out[#out + 1] = string.format('%.17g', reached)
        taken = taken + 1
      end
    end
    at = at + wanted
    if #edges < 2 * wanted then break end
  end
end
return out
