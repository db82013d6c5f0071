-- clear: delete a slice of a model's records with every trace of them; where none is left, keys that lost records left.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  number  how many of the records that the lists name are deleted at most
-- ARGV[2]  string  what a record's key begins with: a member that does not is no record of the model, and is only taken
--                  off the lists
-- ARGV[3]  bytes   packed list of records that no list named: they are deleted too
-- ARGV[4]  bytes   packed list of keys that belong to no record: they are deleted if the model has none left
-- ARGV[5]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  {records that existed, 1 if the lists name more}
-- errors   WRONGTYPE, UNKNOWNKIND: nothing is written
-- cost     O(records * entries * log n)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local most, prefix, token = tonumber(ARGV[1]), ARGV[2], ARGV[5]
local before = answered(token)
if before then return before end

local refusal = wrong_type(home.class, 'set') or wrong_type(home.order, 'zset') or wrong_type(home.expiry, 'zset')
if refusal then return redis.error_reply(refusal) end

-- the lists name the same records, unless some were lost; whatever one of them names is deleted
local records, occupied, foreign, lost = {}, {}, {}, cmsgpack.unpack(ARGV[3])
local function take(rk)
  if string.sub(rk, 1, #prefix) ~= prefix then foreign[#foreign + 1] = rk
  else
    records[#records + 1] = rk
    if not refusal then refusal, occupied[rk] = refused_removal(rk) end
  end
end
for i = 1, #lost do
  if redis.call('SISMEMBER', home.class, lost[i]) == 0 then take(lost[i]) end -- else somebody has stored it meanwhile
end
if most > 0 then
  local named = redis.call('ZRANGE', home.order, 0, most - 1)
  if #named == 0 then named = redis.call('ZRANGE', home.expiry, 0, most - 1) end
  if #named == 0 then named = redis.call('SMEMBERS', home.class) end -- a store that was written without an order
  for i = 1, math.min(#named, most) do take(named[i]) end
end
if refusal then return redis.error_reply(refusal) end

local existed = 0
for i = 1, #records do
  local rk = records[i]
  existed = existed + drop_record(rk, home, occupied[rk])
  occupied[rk] = nil
end
for i = 1, #foreign do
  redis.call('SREM', home.class, foreign[i])
  redis.call('ZREM', home.order, foreign[i])
  redis.call('ZREM', home.expiry, foreign[i])
end
local more = redis.call('EXISTS', home.class, home.order, home.expiry) > 0
if not more then
  redis.call('DEL', shapes_key(home.order))
  local keys = cmsgpack.unpack(ARGV[4])
  for i = 1, #keys do redis.call('UNLINK', keys[i]) end
end
return remember(token, {existed, more and 1 or 0})
