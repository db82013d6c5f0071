-- remove: delete one record and every trace of it in one atomic step.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed list of the commands that on_delete hooks recorded, run last
-- ARGV[2]  bytes   packed event of a model with an event stream (lib_event), or ''
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1 if the record existed, else 0 (leftovers are removed all the same)
-- errors   WRONGTYPE, UNKNOWNKIND: nothing is written. HOOK: the record is deleted, a recorded command failed
-- cost     O(entries * log n)
local rk = KEYS[1]
local home = {class = KEYS[2], order = KEYS[3], expiry = KEYS[4]}
local event = ARGV[2] ~= '' and cmsgpack.unpack(ARGV[2])
local token = ARGV[3]
local before = answered(token)
if before then return before end

local refusal = wrong_type(home.class, 'set') or wrong_type(home.order, 'zset') or wrong_type(home.expiry, 'zset')
local entries, told
if not refusal then refusal, entries = refused_removal(rk) end
if event and not refusal then told, refusal = event_log.begin(event, rk, redis.call('EXISTS', rk) == 1) end
if refusal then return redis.error_reply(refusal) end

local existed = drop_record(rk, home, entries)
if event then event_log.removed(event, told) end
reap(home)
forget_shapes(home.class, home.order)
local failed = run_recorded(cmsgpack.unpack(ARGV[1]), rk, 'deleted')
if failed then return remember_error(token, failed) end
return remember(token, existed)
