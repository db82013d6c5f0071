-- stage_ranked: stage a read of each record that a ranking returns, in the same call (popoto.memory.staging).
--
-- Behind the script of a ranking (composite, top_by_decay), which stands above as the function `ranked`.
--
-- KEYS[1]    -       the first of the ranking's; the last of them is the sentinel
-- ARGV[1..]  -       of the ranking; behind them four of this one:
--                      the ordered set of confirmed reads (kind_access)
--                      the time, Unix seconds
--                      how many staged reads a record's list holds at most, at least 1
--                      key of the token which says to a repeat that the reads are staged, or ''
--
-- returns  what the ranking returns; the reads are staged with its last slice, {0, flat, rows, visited}
-- errors   those of the ranking: nothing is written then
-- cost     that of the ranking, and O(records returned)
local reply = ranked()
local count_key, at, longest, token = unpack(ARGV, #ARGV - 3)
if reply[1] ~= 0 or not reply[4] or answered(token) then return reply end
for i = 1, #reply[2], 2 do
  if redis.call('EXISTS', reply[2][i]) == 1 then stage_read(count_key, reply[2][i], at, tonumber(longest)) end
end
remember(token, 1)
return reply
