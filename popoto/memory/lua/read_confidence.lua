-- read_confidence: the companion data of many records in one call.
--
-- KEYS[1]  -       sentinel of the records' hash tag, never written
-- ARGV[1]  string  slot of the companion data
-- ARGV[2]  string  the first record; the others follow
--
-- returns  for each record its packed data; false where it has none or has expired
-- errors   none of its own
-- cost     O(records)
local slot = ARGV[1]
local out = {}
if not ARGV[2] then return out end
for i = 2, #ARGV do
  local entry = redis.call('EXISTS', ARGV[i]) == 1 and slot_entry(ARGV[i], slot)
  out[i - 1] = entry and redis.call('HGET', entry_key(entry), ARGV[i]) or false
end
return out
