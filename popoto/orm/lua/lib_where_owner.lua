-- lib_where_owner: the op of lib_where for the one record that a unique composite index names.
--
--   {'owner', hash, digest}   kind_composite "x"
function size_of.owner() return 1 end

function gather_of.owner(c) return {redis.call('HGET', c[2], c[3]) or nil} end

function test_of.owner(c, members)
  local owner, out = redis.call('HGET', c[2], c[3]), {}
  for i = 1, #members do out[i] = members[i] == owner end
  return out
end
