-- confirm_claim: the record that claimed a unique value is saved.
--
-- KEYS[1]  hash    the claim (see claim.lua)
-- KEYS[2]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  key of the record
--
-- returns  false when the record owns the value; else the key of the record that has taken it over
-- errors   none of its own
-- cost     O(1)
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return owner end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'pending', 0)
return false
