-- confirm_reads: the staged reads of a record mattered; they go into its log and its count.
--
-- KEYS[1]  hash    the record; must exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  the ordered set of confirmed reads (kind_access)
-- ARGV[2]  int     how many times the log holds at most, at least 1
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  how many reads were staged
-- errors   GONE, WRONGTYPE: nothing is written
-- cost     O(staged reads)
local rk = KEYS[1]
local before = answered(ARGV[3])
if before then return before end
if redis.call('EXISTS', rk) == 0 then
  return redis.error_reply('GONE ' .. rk .. ' is not stored (deleted or expired); nothing was written. ' ..
    'Call save() to store it again.')
end
local refusal = foreign_access_key(ARGV[1], rk)
if refusal then return redis.error_reply(refusal) end
return remember(ARGV[3], confirm_reads(ARGV[1], rk, tonumber(ARGV[2])))
