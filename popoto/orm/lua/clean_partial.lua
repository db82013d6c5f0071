-- clean_partial: delete records that lack their auto key, and reap what expired records left.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed request: records (keys that are deleted if they still lack it), auto (field of the hash, or '')
--
-- returns  {records deleted, expired records that are left to reap}
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing was written
-- cost     O(entries of the records and of at most 100 expired ones)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local request = cmsgpack.unpack(ARGV[1])
local prefix = ''
LIB_MAINTENANCE
local refusal = home_refusal()
if refusal then return refusal end

local deleted = 0
for _, rk in ipairs(request.records) do
  local lacking = redis.call('TYPE', rk).ok == 'hash' and redis.call('SISMEMBER', home.class, rk) == 1
  if lacking and (redis.call('HGET', rk, request.auto) or '') == '' then
    for _, e in ipairs(entries_of(rk) or {}) do
      local key = entry_key(e)
      if kinds[e[2]] and not kinds[e[2]].probe(e, key) then past_foreign(nil, key, kinds[e[2]].drop, e, key, rk) end
    end
    occ_del(rk)
    redis.call('DEL', rk)
    redis.call('SREM', home.class, rk)
    redis.call('ZREM', home.order, rk)
    redis.call('ZREM', home.expiry, rk)
    deleted = deleted + 1
  end
end
reap(home)
forget_shapes(home.class, home.order)
return {deleted, redis.call('ZCOUNT', home.expiry, '-inf', now_ms)}
