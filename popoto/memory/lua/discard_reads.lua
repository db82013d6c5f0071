-- discard_reads: the staged reads of a record did not matter; forget them.
--
-- KEYS[1]  hash    the record; need not exist
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  the ordered set of confirmed reads (kind_access)
-- ARGV[2]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  1
-- errors   WRONGTYPE: nothing is written
-- cost     O(staged reads)
local before = answered(ARGV[2])
if before then return before end
local refusal = foreign_access_key(ARGV[1], KEYS[1])
if refusal then return redis.error_reply(refusal) end
discard_reads(ARGV[1], KEYS[1])
return remember(ARGV[2], 1)
