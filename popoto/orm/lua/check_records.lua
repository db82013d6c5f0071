-- check_records: what records hold, what their lists say they occupy, and how much of it is there. Writes nothing.
--
-- KEYS[1]  set     all records of the model
-- KEYS[2]  zset    the same, all scores 0
-- KEYS[3]  zset    records with a TTL -> when they expire, ms
-- KEYS[4]  -       sentinel of the same hash tag, never written
-- ARGV[1]  bytes   packed request: records (their keys), fields (of the hash, to be read), prefix, most (entries and places
--                  looked at before the call ends; the first record is always done)
--
-- returns  for each record that was done, in order, false when nothing is stored, its type when it is no hash, else
--          {values, occupancy, in class set, in order, expiry, lies, lasting, foreign}
--            values     of the fields, as stored
--            occupancy  packed list of entries; false = none, or none that can be read
--            expiry     0 = right, 1 = missing, 2 = wrong
--            lasting    1 = it never expires, and has a list of its own all the same (lib_occupancy)
--            lies       for each entry of the occupancy 0 = not whole, 1 = whole, a text = whole, with this payload
--            foreign    sentences: keys of its index entries that hold another type
-- errors   WRONGTYPE: one of the model's own keys holds something else; nothing was written
-- cost     O(records * entries of a record)
local home = {class = KEYS[1], order = KEYS[2], expiry = KEYS[3]}
local request = cmsgpack.unpack(ARGV[1])
local prefix = request.prefix
LIB_MAINTENANCE
local refusal = home_refusal()
if refusal then return refusal end

local function expiry_fault(rk)
  local at, listed = redis.call('PEXPIRETIME', rk), redis.call('ZSCORE', home.expiry, rk)
  if at < 0 then return listed and 2 or 0 end
  if not listed then return 1 end
  return at ~= tonumber(listed) and 2 or 0
end

local out = {}
for i, rk in ipairs(request.records) do
  if looked_at >= request.most then break end
  local held = redis.call('TYPE', rk).ok
  if held == 'none' then out[i] = false
  elseif held ~= 'hash' then out[i] = held
  else
    local entries, lies, foreign, occupancy = entries_of(rk), {}, {}, false
    if entries then
      occupancy = cmsgpack.pack(entries)
      for k = 1, #entries do
        local lie, sentence = true, nil
        if kinds[entries[k][2]] then lie, sentence = entry_lies(entries[k], rk) end
        lies[k] = lie == true and 1 or lie or 0
        foreign[#foreign + 1] = sentence
      end
    end
    out[i] = {redis.call('HMGET', rk, unpack(request.fields)), occupancy, redis.call('SISMEMBER', home.class, rk),
      redis.call('ZSCORE', home.order, rk) and 1 or 0, expiry_fault(rk), lies,
      redis.call('PEXPIRETIME', rk) < 0 and redis.call('EXISTS', occupancy_key(rk)) or 0, foreign}
  end
end
return out
