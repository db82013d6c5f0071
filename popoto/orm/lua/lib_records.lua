-- lib_records: records packed for speed (popoto.orm.columns takes them apart).
--
-- read_records(q, members)   those that exist: {keys, text, others, missing, unread}. Of each the fields q.fields are read.
--                            text: the first q.clear values of each, which are one msgpack object each, one behind the other
--                            with a nil between; others: the values behind them up to q.kept, false where there is none;
--                            missing: the places (from 1) in text where a nil stands for none; unread: keys of no record
local NIL = '\192'

-- The values of one record with a nil for each that is missing, whose places go to `missing`; false for no record.
local function patched(q, values, before, missing)
  local found = false
  for k = 1, #q.fields do found = found or values[k] end
  if not found then return false end
  for k = 1, q.clear or 0 do
    if not values[k] then
      values[k] = NIL
      missing[#missing + 1] = before + k
    end
  end
  return values
end

local function read_records(q, members)
  local fields, clear, kept = q.fields, q.clear or 0, q.kept or 0
  local call, concat = redis.pcall, table.concat
  local keys, texts, others, missing, unread = {}, {}, {}, {}, {}
  local n = 0
  for i = 1, #members do
    local values = call('HMGET', members[i], unpack(fields))
    if values.err then unread[#unread + 1] = members[i]
    else
      local whole, text = pcall(concat, values, NIL, 1, clear)
      if not whole or clear == 0 then
        values = patched(q, values, n * clear, missing)
        text = values and concat(values, NIL, 1, clear)
      end
      if text then
        n = n + 1
        keys[n], texts[n] = members[i], text
        for k = clear + 1, kept do others[#others + 1] = values[k] end
      end
    end
  end
  return {keys, concat(texts, NIL), others, missing, unread}
end
