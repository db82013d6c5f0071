-- fetch: hand a consumer the entries that another one (or itself) took and never acknowledged, and then new ones.
--
-- KEYS[1]  stream  the stream
-- KEYS[2]  stream  its dead letters
-- KEYS[3]  hash    entry id -> what its handler last failed with, of this group
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  string  group; made at the beginning of the stream where it is missing
-- ARGV[2]  string  consumer
-- ARGV[3]  int     entries at most
-- ARGV[4]  int     ms after which an entry that nobody acknowledged is taken over
-- ARGV[5]  int     how often an entry is handed out again before it is a dead letter
-- ARGV[6]  string  where the search for entries to take over goes on, '0-0' at first
-- ARGV[7]  string  longest length of the dead letters, about; '' for any
--
-- returns  {where the search goes on, taken over, new}; each entry is {id, {field, value...}}
-- errors   WRONGTYPE when a key is no stream or hash; nothing is changed
-- cost     O(entries + 10 * entries looked at)
local stream, dead, errors = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, limit, retries = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])

for key, kind in pairs({[stream] = 'stream', [dead] = 'stream', [errors] = 'hash'}) do
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', expected a ' .. kind ..
      '; nothing was changed. Give the consumer the key of a stream.')
  end
end

local found = redis.pcall('XAUTOCLAIM', stream, group, consumer, ARGV[4], ARGV[6], 'COUNT', limit)
if found.err then
  if not string.find(found.err, 'NOGROUP', 1, true) then return found end
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  found = {'0-0', {}, {}}
end

local function settled(id)
  redis.call('XACK', stream, group, id)
  redis.call('HDEL', errors, id)
end

local taken = {}
for _, entry in ipairs(found[2]) do
  local id = entry[1]
  local before = redis.call('XPENDING', stream, group, id, id, 1)[1][4] - 1 -- this call has counted itself
  if before > retries then
    local letter = entry[2]
    local why = redis.call('HGET', errors, id) or 'no consumer acknowledged it: each one ended or took too long'
    local now = redis.call('TIME')
    local about = {'original_stream', stream, 'original_id', id, 'failure_count', before, 'last_error', why,
      'dead_letter_ts', string.format('%s.%06d', now[1], now[2])}
    for i = 1, #about do letter[#letter + 1] = about[i] end
    if ARGV[7] == '' then redis.call('XADD', dead, '*', unpack(letter))
    else redis.call('XADD', dead, 'MAXLEN', '~', ARGV[7], '*', unpack(letter)) end
    settled(id)
  else
    taken[#taken + 1] = entry
  end
end
for _, id in ipairs(found[3]) do redis.call('HDEL', errors, id) end -- trimmed off the stream meanwhile

local new = {}
if #taken < limit then
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', limit - #taken, 'STREAMS', stream, '>')
  if read then new = read[1][2] end
end
return {found[1], taken, new}
