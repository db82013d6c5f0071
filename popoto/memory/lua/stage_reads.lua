-- stage_reads: note that records were read; whether it mattered is said later (confirm_reads, discard_reads).
--
-- KEYS[1..]  hash    the records; behind them a sentinel of the same hash tag, never written
-- ARGV[1]    string  the ordered set of confirmed reads (kind_access)
-- ARGV[2]    float   the time, Unix seconds
-- ARGV[3]    int     how many staged reads a record's list holds at most, at least 1; the rest is only counted
-- ARGV[4]    string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  how many of the records are stored
-- errors   none of its own
-- cost     O(records)
local before = answered(ARGV[4])
if before then return before end
local longest = tonumber(ARGV[3])
local stored = 0
for i = 1, #KEYS - 1 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    stage_read(ARGV[1], KEYS[i], ARGV[2], longest)
    stored = stored + 1
  end
end
return remember(ARGV[4], stored)
