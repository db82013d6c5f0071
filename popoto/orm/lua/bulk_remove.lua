-- bulk_remove: delete many records and every trace of them in one atomic step.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed list of the records, {key, commands, event} each: packed list of the commands that on_delete
--                  hooks recorded; packed event of a model with an event stream (lib_event), or ''
-- ARGV[2]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  {0, 1 or 0 for each record: did it exist}; or {1, number, sentence} of the first record that cannot be deleted
--          (the sentence begins with WRONGTYPE or UNKNOWNKIND; nothing is written); or {2, number, sentence} when all were
--          deleted and a command that a hook of that record recorded failed
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing is written
-- cost     O(records * entries * log n)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local token = ARGV[2]
local before = answered(token)
if before then return before end

local refusal = wrong_type(home.class, 'set') or wrong_type(home.order, 'zset') or wrong_type(home.expiry, 'zset')
if refusal then return redis.error_reply(refusal) end
local records = cmsgpack.unpack(ARGV[1])
local events, told, occupied = {}, {}, {}
for i = 1, #records do
  local rk, _, event = unpack(records[i])
  refusal, occupied[rk] = refused_removal(rk)
  if event ~= '' and not refusal then
    events[i] = cmsgpack.unpack(event)
    told[i], refusal = event_log.begin(events[i], rk, redis.call('EXISTS', rk) == 1)
  end
  if refusal then return {1, i - 1, refusal} end
end

local existed = {}
for i = 1, #records do
  local rk = records[i][1]
  existed[i] = drop_record(rk, home, occupied[rk])
  occupied[rk] = nil
  if events[i] and existed[i] == 1 then event_log.removed(events[i], told[i]) end -- once, if a key comes twice
end
reap(home)
forget_shapes(home.class, home.order)
local failed, failed_at
for i = 1, #records do
  local sentence = run_recorded(cmsgpack.unpack(records[i][2]), records[i][1], 'deleted')
  if sentence and not failed then failed, failed_at = sentence, i - 1 end
end
if failed then return remember(token, {2, failed_at, failed}) end
return remember(token, {0, existed})
