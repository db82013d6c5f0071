-- check_places: count the places of indexes that lead to no record, or to one that does not occupy them. Writes nothing.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed request: what walk_places of lib_maintenance takes, and prefix
--
-- returns  for each job that was done {dead, stale}, flat; {-1, type} for a key to be read in parts
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing was written
-- cost     O(members visited * entries of a record)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local request = cmsgpack.unpack(ARGV[1])
local prefix = request.prefix
LIB_MAINTENANCE
local refusal = home_refusal()
if refusal then return refusal end
return walk_places(request, function() return 1 end)
