-- withdraw: remove the proposal of one record in one partition.
--
-- KEYS[1]  hash    the record; need not exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  base of the pending proposals (kind_proposal)
-- ARGV[2]  string  partition, escaped
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1 if there was one, else 0
-- errors   WRONGTYPE: nothing is written
-- cost     O(log n)
local before = answered(ARGV[3])
if before then return before end
local refusal = wrong_type(ARGV[1] .. ':' .. ARGV[2], 'zset')
if refusal then return redis.error_reply(refusal) end
return remember(ARGV[3], withdraw(ARGV[1], ARGV[2], KEYS[1]))
