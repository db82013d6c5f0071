-- lib_learnt: what memory fields learn, as entries of a model's event stream (popoto.memory.events).
--
-- Needs lib_event before it. `told` is what event_log.begin gave.
--
-- log_confidence(event, told, field, signal, c)   `signal` was folded into the confidence of `field`, which is `c` now
-- log_resolved(event, told, error, mode)          a prediction was resolved
local function log_confidence(event, told, field, signal, c)
  event_log.learnt(event, told, 'confidence_update',
    {'field', field, 'signal', event_log.number(signal), 'new_confidence', event_log.number(c)})
end

local function log_resolved(event, told, error, mode)
  event_log.learnt(event, told, 'prediction_resolved',
    {'prediction_error', event_log.number(error), 'resolution_mode', mode})
end
