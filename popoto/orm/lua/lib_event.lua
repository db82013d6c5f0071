-- lib_event: the entry of a model's event stream, written in the step of the change that it tells of.
--
-- Needs lib_record and lib_number before it. An event is what the caller says of the change, a map:
--   stream   key of the stream; that of a partition has a colon and the partition's text behind it
--   model    name of the model
--   longest  about how many entries are kept; missing = all
--   part     field whose value is the partition; missing = there is one stream
--   value    the partition's text after the change, false for None; missing = as it is stored
--   meta     fields of which each entry carries the value
--   changed  the fields that were written, separated by commas; '' for a whole record
-- All else comes from the stored record, whatever the caller believes: whether it existed, its partition, its values.
local event_log = {}
do
  local function clock_text(text) -- without the microseconds, where there are none
    return (string.gsub(text, '^(%d+:%d+:%d+)%.000000', '%1'))
  end

  local function day_text(text)
    return string.sub(text, 1, 4) .. '-' .. string.sub(text, 5, 6) .. '-' .. string.sub(text, 7, 8)
  end

  local function tagged_text(value)
    local body = value.as_encodable
    if type(body) ~= 'string' then return nil end
    if value.__datetime__ then return day_text(body) .. ' ' .. clock_text(string.sub(body, 10)) end
    if value.__date__ then return day_text(body) end
    if value.__time__ then return clock_text(body) end
    return body -- a Decimal, an int beyond 64 bits
  end

  local function float_text(value)
    if value ~= value then return 'nan' end
    if value == math.huge then return 'inf' end
    if value == -math.huge then return '-inf' end
    if value == 0 and 1 / value < 0 then return '-0.0' end
    return (string.gsub(number.float.part(value), '/%-', '-')) -- as an index has it, less the escaping
  end

  -- The text that Python's str() gives of a stored scalar; nil for None, for what is missing and for what is no scalar.
  local function text_of(bytes)
    if not bytes then return nil end
    local ok, value = pcall(cmsgpack.unpack, bytes)
    if not ok or value == nil then return nil end
    local kind = type(value)
    if kind == 'string' then return value end
    if kind == 'boolean' then return value and 'True' or 'False' end
    if kind == 'table' then return tagged_text(value) end
    local head = string.byte(bytes)
    if head == 0xca or head == 0xcb then return float_text(value) end
    return number.int.text(number.int.read(bytes))
  end

  local function stream_of(event, text)
    return text and event.stream .. ':' .. text or event.stream
  end

  local function metadata_of(event, rk)
    if #event.meta == 0 then return {} end
    local stored, values = redis.call('HMGET', rk, unpack(event.meta)), {}
    for i = 1, #event.meta do values[i] = text_of(stored[i]) or '' end
    return values
  end

  -- `more`: {name, text, ...} that this entry has besides, or nil
  local function append(event, stream, rk, op, values, more)
    local now = redis.call('TIME')
    local entry = {'XADD', stream}
    if event.longest then
      entry[3], entry[4], entry[5] = 'MAXLEN', '~', event.longest
    end
    entry[#entry + 1] = '*'
    local about = {'model', event.model, 'pk', rk, 'op', op, 'ts', string.format('%s.%06d', now[1], now[2]),
      'changed_fields', op == 'update' and event.changed or ''}
    for i = 1, #about do entry[#entry + 1] = about[i] end
    for i = 1, more and #more or 0 do entry[#entry + 1] = more[i] end
    for i = 1, #event.meta do
      entry[#entry + 1] = event.meta[i]
      entry[#entry + 1] = values[i]
    end
    redis.call(unpack(entry))
  end

  -- Before the first write: what the entry needs of the stored record `rk`. Returns it, or nil and a sentence.
  function event_log.begin(event, rk, exists)
    local from = exists and stream_of(event, event.part and text_of(redis.call('HGET', rk, event.part)) or nil)
    local to = from
    if event.value ~= nil or not from then to = stream_of(event, event.value or nil) end
    local refusal = wrong_type(to, 'stream') or (from and wrong_type(from, 'stream')) or nil
    if refusal then return nil, refusal end
    return {rk = rk, from = from, to = to, values = from and metadata_of(event, rk)}
  end

  -- The record was written, and lies at `rk` now. One that has left its partition is told of there as well.
  function event_log.saved(event, state, rk)
    local from = state.from
    if from and from ~= state.to then append(event, from, state.rk, 'delete', state.values, {'moved_to', state.to}) end
    local old_pk = from and state.rk ~= rk and state.rk or nil
    append(event, state.to, rk, from and 'update' or 'create', metadata_of(event, rk), old_pk and {'old_pk', old_pk})
  end

  -- The record, or a name that is none, learnt something that lies beside its values; `more` says what.
  function event_log.learnt(event, state, op, more)
    local values = state.from and metadata_of(event, state.rk) or {}
    for i = 1, #event.meta do values[i] = values[i] or '' end
    append(event, state.to, state.rk, op, values, more)
  end

  event_log.number = float_text

  -- The record was deleted; one that had expired before is not told of.
  function event_log.removed(event, state)
    if state.from then append(event, state.from, state.rk, 'delete', state.values) end
  end
end
