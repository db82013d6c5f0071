-- propose: records are put before an agent; note when, until it is known what came of it.
--
-- KEYS[1..]  hash    the records; behind them a sentinel of the same hash tag, never written
-- ARGV[1]    string  base of the pending proposals (kind_proposal)
-- ARGV[2]    string  partition, escaped
-- ARGV[3]    float   the time, Unix seconds
-- ARGV[4]    string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  how many of the records are stored
-- errors   WRONGTYPE: nothing is written
-- cost     O(records * log n)
local before = answered(ARGV[4])
if before then return before end
local refusal = wrong_type(ARGV[1] .. ':' .. ARGV[2], 'zset')
if refusal then return redis.error_reply(refusal) end
local stored = 0
for i = 1, #KEYS - 1 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    propose(ARGV[1], ARGV[2], KEYS[i], ARGV[3])
    stored = stored + 1
  end
end
return remember(ARGV[4], stored)
