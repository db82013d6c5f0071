-- migrate: bring one record to the model's new definition in one atomic step, if it still is what was read.
--
-- KEYS[1]  hash    the record as it lies now
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  set     all records under the model's earlier name; the same as KEYS[2] where that has not changed
-- KEYS[6]  zset    the same, all scores 0
-- KEYS[7]  zset    those with a TTL -> when they expire, ms
-- KEYS[8]  hash    how far the migration is
-- KEYS[9]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed map:
--                    key      the record's key afterwards
--                    read     the whole hash as it was read, a flat list: field, bytes, field, bytes...
--                    unset    fields that the record loses
--                    renamed  list of {field, its new name}: what an index or a memory field keeps under the old name
--                             follows to the new one
-- ARGV[2]  bytes   packed plan, see commit
-- ARGV[3]  bytes   packed list of the entries that the record occupies afterwards, all of them
--
-- returns  'done'; 'gone'; 'changed' when the record is not what was read; or {sentence}: why it cannot be saved (first
--          word: a code of commit). Nothing is written but for 'done'
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing is written
-- cost     O(fields + entries * log n)
local home = {class = KEYS[2], order = KEYS[3], expiry = KEYS[4]}
LIB_COMMIT
local rk, request, plan = KEYS[1], cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local refusal = refused_home() or wrong_type(KEYS[5], 'set') or wrong_type(KEYS[6], 'zset') or wrong_type(KEYS[7], 'zset')
  or wrong_type(KEYS[8], 'hash')
if refusal then return redis.error_reply(refusal) end

local held = redis.call('TYPE', rk).ok
if held == 'none' then return 'gone' end
if held ~= 'hash' or redis.call('HLEN', rk) * 2 ~= #request.read then return 'changed' end
for i = 1, #request.read, 2 do
  if redis.call('HGET', rk, request.read[i]) ~= request.read[i + 1] then return 'changed' end
end

-- Give the stored entries the slot names of the fields as they are called now.
local side = occupancy_key(rk)
local blob = redis.call('GET', side)
if #request.renamed > 0 then
  local _, entries = stored_occupancy(rk)
  for i = 1, #entries do
    local field, role = string.match(entries[i][1], '^([^#]*)(.*)$')
    for r = 1, #request.renamed do
      if field == request.renamed[r][1] then field = request.renamed[r][2] end
    end
    entries[i][1] = field .. role
  end
  if #entries > 0 then occ_set(rk, entries) end
end

for r = 1, #request.renamed do -- the stored record has its partition under the field's old name
  if plan.event and plan.event.part == request.renamed[r][2] then plan.event.part = request.renamed[r][1] end
end
if request.key ~= rk then plan.moved = rk end
local asked, job, sentence = pcall(check_commit, request.key, plan, ARGV[3])
if not asked or not job then
  if blob then redis.call('SET', side, blob) else occ_del(rk) end
  return {asked and sentence or tostring(job)}
end
write_commit(job)
if #request.unset > 0 then redis.call('HDEL', request.key, unpack(request.unset)) end
if plan.moved then
  redis.call('SREM', KEYS[5], rk)
  redis.call('ZREM', KEYS[6], rk)
  redis.call('ZREM', KEYS[7], rk)
  redis.call('HINCRBY', KEYS[8], 'moved', 1)
end
redis.call('HINCRBY', KEYS[8], 'migrated', 1)
if expiring > 0 then reap(home) end
forget_shapes(KEYS[5], KEYS[6])
return 'done'
