-- read: these records, in one call.
--
-- KEYS[1..]  hash  records, of one hash tag
-- KEYS[n]    -     the last one: sentinel of the same hash tag, never written
-- ARGV[1]    bytes packed map: fields, clear, kept (lib_records)
--
-- returns  {keys, text, others, missing, unread} of lib_records
-- errors   none of its own
-- cost     O(records x fields): about 2 us a record
LIB_RECORDS
local members = {}
for i = 1, #KEYS - 1 do members[i] = KEYS[i] end
return read_records(cmsgpack.unpack(ARGV[1]), members)
