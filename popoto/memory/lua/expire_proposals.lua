-- expire_proposals: remove the proposals of a partition that nobody has answered for too long.
--
-- KEYS[1]  zset    record -> when it was surfaced (kind_proposal)
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  base of the pending proposals
-- ARGV[2]  string  partition, escaped
-- ARGV[3]  float   those surfaced up to then, Unix seconds
-- ARGV[4]  int     at most so many
-- ARGV[5]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  {record, when it was surfaced, record, when...}, the oldest first
-- errors   WRONGTYPE: nothing is written
-- cost     O(proposals removed * log n)
local before = answered(ARGV[5])
if before then return before end
local refusal = wrong_type(KEYS[1], 'zset')
if refusal then return redis.error_reply(refusal) end
local stale = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3], 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for i = 1, #stale, 2 do withdraw(ARGV[1], ARGV[2], stale[i]) end
return remember(ARGV[5], stale)
