-- bulk_commit: save many records and every index entry of theirs in one atomic step; or refuse, and change nothing.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0: the order by name
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed list of the records: {key, packed plan, packed entries, commands} each (commit; commands: packed
--                  list of further ones that run last, or missing), or the key alone where all have the same plan
-- ARGV[2]  bytes   packed map: plan, entries = those of the records that bring none; lenient = true: a record that must be
--                  stored and is not is left out, instead of refusing the batch
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- The records count as saved one after the other: a unique value that one gives up is free for those behind it.
--
-- returns  {0, numbers of the records that were left out}, counted from 0; or {1, number, sentence} of the first record
--          that cannot be saved (the sentence begins with one of commit's codes); or {2, number, sentence} when all were
--          saved and a command that a hook of that record recorded failed
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing is written
-- cost     O(records * (fields + entries * log n))
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local token = ARGV[3]
local before = answered(token)
if before then return before end
LIB_COMMIT
local refusal = refused_home()
if refusal then return redis.error_reply(refusal) end

-- 1. Everything that can refuse, of every record.
local records, common = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local jobs, left_out, seen = {}, {}, {}
claims = {owner = {}, left = {}}
for i = 1, #records do
  local rk, packed_plan, packed, more = records[i], common.plan, common.entries, nil
  if type(rk) == 'table' then rk, packed_plan, packed, more = unpack(rk) end
  local plan, job = cmsgpack.unpack(packed_plan), nil
  if seen[rk] or seen[plan.moved] then
    refusal = 'EXISTS ' .. rk .. ' is the key of two records of one batch (the other one is number ' ..
      (seen[rk] or seen[plan.moved]) .. '); nothing was written. Give each a key of its own.'
  else
    job, refusal = check_commit(rk, plan, packed)
  end
  if job then
    seen[rk] = i - 1
    if plan.moved then seen[plan.moved] = i - 1 end
    claim(job)
    jobs[#jobs + 1] = job
    job.number, job.more = i - 1, more
  elseif common.lenient and string.sub(refusal, 1, 8) == 'MISSING ' then left_out[#left_out + 1] = i - 1
  else return {1, i - 1, refusal} end
end

-- 2. Writes; what hooks recorded comes behind all of them.
for i = 1, #jobs do write_commit(jobs[i]) end
if expiring > 0 then reap(home) end
local failed, failed_at
for i = 1, #jobs do
  local rk, commands, more = jobs[i].rk, jobs[i].plan.commands, jobs[i].more
  local sentence = (commands and run_recorded(commands, rk, 'saved'))
    or (more and run_recorded(cmsgpack.unpack(more), rk, 'saved'))
  if sentence and not failed then failed, failed_at = sentence, jobs[i].number end
end
if failed then return remember(token, {2, failed_at, failed}) end
return remember(token, {0, left_out})
