-- lib_number: exact addition of the numbers that the codec stores, and their texts in indexes.
--
-- number.int, number.float and number.Decimal each have
--   parse(text)   the value of a text as Python's str() or repr() gives it
--   read(bytes)   the value of a hash field's msgpack bytes; nil when they hold no such number. None counts as 0
--   add(a, b)     the sum; or nil and a reason
--   pack(v)       the bytes that popoto/orm/codec.py would store
--   text(v)       what the caller gets
--   part(v)       the part of an index key, as keys.index_part makes it; or nil and a reason
--   score(v)      the nearest double, as ZADD reads it
--   plain(v)      true when v is the value that its score stands for, as sorted.is_plain has it
-- An int is its decimal text, a float a Lua number, a Decimal a table {negative, digits, exponent}.
--
-- A Lua number is a double: exact up to 2^53 only. What is longer is added as text, in limbs of seven digits.
local number = {}
do
  local LIMB, WIDTH = 10000000, 7
  local INT_DIGITS = 4300       -- more than Python turns into text or back
  local DECIMAL_DIGITS = 10000
  local SHORT = 15              -- the sum of two texts of this length is below 2^53
  local INT_TAG = '\130\167__int__\195\172as_encodable'
  local DECIMAL_TAG = '\130\171__Decimal__\195\172as_encodable'

  -- Digits, as strings and as limbs (lowest first) ---------------------------------------------------------------

  local function stripped(digits)
    local found = string.find(digits, '[1-9]')
    return found and string.sub(digits, found) or '0'
  end

  local function limbs_of(digits)
    local limbs = {}
    for last = #digits, 1, -WIDTH do
      limbs[#limbs + 1] = tonumber(string.sub(digits, math.max(1, last - WIDTH + 1), last))
    end
    return limbs
  end

  local function digits_of(limbs)
    local texts, count = {}, #limbs
    for i = count, 1, -1 do texts[count - i + 1] = string.format('%07d', limbs[i]) end
    return stripped(table.concat(texts))
  end

  local function plus(a, b)
    a, b = limbs_of(a), limbs_of(b)
    local sum, carry = {}, 0
    for i = 1, math.max(#a, #b) do
      local limb = (a[i] or 0) + (b[i] or 0) + carry
      carry = limb >= LIMB and 1 or 0
      sum[i] = limb - carry * LIMB
    end
    if carry > 0 then sum[#sum + 1] = carry end
    return digits_of(sum)
  end

  local function minus(a, b) -- a > b
    a, b = limbs_of(a), limbs_of(b)
    local borrow = 0
    for i = 1, #a do
      local limb = a[i] - (b[i] or 0) - borrow
      borrow = limb < 0 and 1 or 0
      a[i] = limb + borrow * LIMB
    end
    return digits_of(a)
  end

  -- Add two numbers, each given as (negative, digits without leading zeros).
  local function add_signed(a_negative, a, b_negative, b)
    if a_negative == b_negative then return a_negative, plus(a, b) end
    if a == b then return false, '0' end
    if #a > #b or (#a == #b and a > b) then return a_negative, minus(a, b) end
    return b_negative, minus(b, a)
  end

  -- msgpack ------------------------------------------------------------------------------------------------------

  local function one_object(ok, ...)
    if ok and select('#', ...) == 1 then return true, (...) end
    return false
  end

  local function unpacked(bytes) return one_object(pcall(cmsgpack.unpack, bytes)) end

  local function body_of(value, tag)
    if type(value) ~= 'table' or value[tag] ~= true or type(value.as_encodable) ~= 'string' then return nil end
    for key in pairs(value) do
      if key ~= tag and key ~= 'as_encodable' then return nil end
    end
    return value.as_encodable
  end

  local function is_wide(bytes) -- uint64, int64: cmsgpack would round them to doubles
    local head = string.byte(bytes)
    return (head == 207 or head == 211) and #bytes == 9
  end

  -- Four words of 16 bits, highest first, of a magnitude; or nil where they do not suffice.
  local function words_of(digits)
    local limbs, words = limbs_of(digits), {}
    for w = 4, 1, -1 do
      local rest = 0
      for i = #limbs, 1, -1 do
        local value = rest * LIMB + limbs[i]
        limbs[i] = math.floor(value / 65536)
        rest = value - limbs[i] * 65536
      end
      words[w] = rest
    end
    for i = 1, #limbs do
      if limbs[i] > 0 then return nil end
    end
    return words
  end

  local function negated(words) -- two's complement
    local carry = 1
    for w = 4, 1, -1 do
      local value = 65535 - words[w] + carry
      carry = value > 65535 and 1 or 0
      words[w] = value - carry * 65536
    end
  end

  local function read_wide(bytes)
    local words = {struct.unpack('>HHHH', bytes, 2)}
    local negative = string.byte(bytes) == 211 and words[1] >= 32768
    if negative then negated(words) end
    local limbs = {0}
    for w = 1, 4 do
      local carry = words[w]
      for i = 1, #limbs do
        local value = limbs[i] * 65536 + carry
        carry = math.floor(value / LIMB)
        limbs[i] = value - carry * LIMB
      end
      if carry > 0 then limbs[#limbs + 1] = carry end
    end
    return (negative and '-' or '') .. digits_of(limbs)
  end

  local function pack_wide(text)
    local negative = string.sub(text, 1, 1) == '-'
    local words = words_of(negative and string.sub(text, 2) or text)
    if not words then return nil end
    if negative then
      negated(words)
      if words[1] < 32768 then return nil end
    end
    return (negative and '\211' or '\207') .. struct.pack('>HHHH', words[1], words[2], words[3], words[4])
  end

  -- int ----------------------------------------------------------------------------------------------------------

  local function int_text(negative, digits)
    return (negative and digits ~= '0' and '-' or '') .. digits
  end

  local function parse_int(text)
    local sign, digits = string.match(text, '^(-?)(%d+)$')
    return sign and int_text(sign == '-', stripped(digits))
  end

  local function read_int(bytes)
    if is_wide(bytes) then return read_wide(bytes) end
    local ok, value = unpacked(bytes)
    if not ok then return nil end
    if value == nil then return '0' end
    if type(value) == 'number' then
      -- cmsgpack and other Lua writers turn integers and integral doubles into one another
      if value ~= value or value == math.huge or value == -math.huge or value ~= math.floor(value) then return nil end
      return value == 0 and '0' or string.format('%.0f', value)
    end
    local body = body_of(value, '__int__')
    return body and parse_int(body)
  end

  local function score_text(score)
    if score == math.huge then return '+inf' elseif score == -math.huge then return '-inf' end
    return score == 0 and '0' or string.format('%.17g', score)
  end

  local function escaped(text) return (string.gsub(text, '%-', '/-')) end

  number.int = {
    parse = parse_int,
    read = read_int,
    add = function(a, b)
      if #a <= SHORT and #b <= SHORT then return string.format('%.0f', tonumber(a) + tonumber(b)) end
      local a_sign, a_digits = string.match(a, '^(-?)(%d+)$')
      local b_sign, b_digits = string.match(b, '^(-?)(%d+)$')
      local negative, digits = add_signed(a_sign == '-', a_digits, b_sign == '-', b_digits)
      if #digits > INT_DIGITS then return nil, 'it has more than ' .. INT_DIGITS .. ' digits' end
      return int_text(negative, digits)
    end,
    pack = function(v)
      if #v <= SHORT then return cmsgpack.pack(tonumber(v)) end
      return pack_wide(v) or (INT_TAG .. cmsgpack.pack(v))
    end,
    text = function(v) return v end,
    part = escaped,
    score = function(v) return score_text(tonumber(v)) end,
    plain = function(v)
      local score = tonumber(v)
      return score == 0 or string.format('%.0f', score) == v -- an infinite one prints as no number
    end,
  }

  -- float --------------------------------------------------------------------------------------------------------

  local function split(text) -- of %.Ne: sign, digits without trailing zeros, exponent
    local sign, first, rest, exponent = string.match(text, '^(-?)(%d)%.?(%d*)e([+-]%d+)$')
    local digits = string.match(first .. rest, '^(.-)0*$')
    return sign, digits == '' and '0' or digits, tonumber(exponent)
  end

  -- The shortest digits that read back as x and, of those, the nearest to x: what Python's repr prints.
  local function shortest(x)
    -- a normal double is the double of any text of up to 15 digits only if %.15g gives that text; others are tried
    local least = math.abs(x) < 2.2250738585072014e-308 and 1 or 15
    for count = least, 16 do
      local text = string.format('%.' .. (count - 1) .. 'e', x)
      if tonumber(text) == x then return split(text) end
      if count == 16 then
        -- above a power of two doubles lie twice as far apart as below it: the next text up may read back where the
        -- nearest one, which lies below, does not
        local mantissa, exponent = string.match(text, '^(.*)(e.*)$')
        local sign, digits = string.match(mantissa, '^(-?)(.*)$')
        local up = plus((string.gsub(digits, '%.', '')), '1')
        if #up == 16 then
          up = sign .. string.sub(up, 1, 1) .. '.' .. string.sub(up, 2) .. exponent
          if tonumber(up) == x then return split(up) end
        end
      end
    end
    return split(string.format('%.16e', x))
  end

  local function repr(x)
    if x == 0 then return '0.0' end -- -0.0 too: equal values have equal texts
    local sign, digits, exponent = shortest(x)
    local body
    if exponent < -4 or exponent >= 16 then
      body = string.sub(digits, 1, 1) .. (#digits > 1 and '.' .. string.sub(digits, 2) or '') ..
        string.format('e%s%02d', exponent < 0 and '-' or '+', math.abs(exponent))
    elseif exponent < 0 then
      body = '0.' .. string.rep('0', -exponent - 1) .. digits
    else
      digits = digits .. string.rep('0', exponent + 1 - #digits)
      local fraction = string.sub(digits, exponent + 2)
      body = string.sub(digits, 1, exponent + 1) .. '.' .. (fraction == '' and '0' or fraction)
    end
    return sign .. body
  end

  number.float = {
    parse = tonumber,
    read = function(bytes)
      local ok, value = unpacked(bytes)
      if ok and value == nil then return 0 end
      if ok and type(value) == 'number' and not is_wide(bytes) then return value end
      local int = ok and read_int(bytes) -- the double of a long integer counts only where it is that integer
      value = int and tonumber(int)
      if value and string.format('%.0f', value) == int then return value end
    end,
    add = function(a, b)
      local sum = a + b
      if sum ~= sum or sum == math.huge or sum == -math.huge then return nil, 'it is no finite float' end
      return sum
    end,
    pack = function(v) return '\203' .. struct.pack('>d', v) end,
    text = function(v) return string.format('%.17g', v) end,
    part = function(v) return escaped(repr(v)) end,
    score = score_text,
    plain = function() return true end,
  }

  -- Decimal ------------------------------------------------------------------------------------------------------

  local function parse_decimal(text)
    local mantissa, exponent = string.match(text, '^(.-)[eE]([+-]?%d+)$')
    mantissa, exponent = mantissa or text, exponent or '0'
    local sign, whole, fraction = string.match(mantissa, '^([+-]?)(%d*)%.?(%d*)$')
    -- up to 15 digits an exponent is an exact Lua number
    if not sign or #whole + #fraction == 0 or #exponent > 16 then return nil end
    return {sign == '-', stripped(whole .. fraction), tonumber(exponent) - #fraction}
  end

  local function to_exponent(v, exponent)
    if v[2] == '0' then return '0' end
    if #v[2] + v[3] - exponent > DECIMAL_DIGITS then return nil end
    return v[2] .. string.rep('0', v[3] - exponent)
  end

  local function decimal_text(v)
    local digits, exponent = v[2], v[3]
    local left = exponent + #digits -- digits before the point
    local body
    if exponent > 0 or left <= -6 then
      body = string.sub(digits, 1, 1) .. (#digits > 1 and '.' .. string.sub(digits, 2) or '') ..
        string.format('E%s%.0f', left < 1 and '-' or '+', math.abs(left - 1))
    elseif exponent == 0 then
      body = digits
    elseif left > 0 then
      body = string.sub(digits, 1, left) .. '.' .. string.sub(digits, left + 1)
    else
      body = '0.' .. string.rep('0', -left) .. digits
    end
    return (v[1] and '-' or '') .. body
  end

  number.Decimal = {
    parse = parse_decimal,
    read = function(bytes)
      local ok, value = unpacked(bytes)
      if ok and value == nil then return {false, '0', 0} end
      local body = ok and body_of(value, '__Decimal__')
      return body and parse_decimal(body) or nil
    end,
    -- with the smaller exponent of the two, as Python's decimal does where no precision limits it
    add = function(a, b)
      local exponent = math.min(a[3], b[3])
      local a_digits, b_digits = to_exponent(a, exponent), to_exponent(b, exponent)
      if not a_digits or not b_digits then return nil, 'it has more than ' .. DECIMAL_DIGITS .. ' digits' end
      local negative, digits = add_signed(a[1], a_digits, b[1], b_digits)
      if #digits > DECIMAL_DIGITS then return nil, 'it has more than ' .. DECIMAL_DIGITS .. ' digits' end
      return {negative, digits, exponent}
    end,
    pack = function(v) return DECIMAL_TAG .. cmsgpack.pack(decimal_text(v)) end,
    text = decimal_text,
    part = function(v)
      local digits, exponent = v[2], v[3]
      if digits == '0' then return '0' end
      local left = exponent + #digits
      if exponent > DECIMAL_DIGITS or left < -DECIMAL_DIGITS then
        return nil, 'written without an exponent it has more than ' .. DECIMAL_DIGITS .. ' digits'
      end
      local body
      if exponent >= 0 then
        body = digits .. string.rep('0', exponent)
      else
        local whole = left > 0 and string.sub(digits, 1, left) or '0'
        local fraction = string.match(left > 0 and string.sub(digits, left + 1) or string.rep('0', -left) .. digits,
          '^(.-)0*$')
        body = fraction == '' and whole or whole .. '.' .. fraction
      end
      return escaped((v[1] and '-' or '') .. body)
    end,
    score = function(v) return score_text(tonumber(decimal_text(v))) end,
    plain = function(v)
      local score = tonumber(decimal_text(v))
      if score == 0 or math.abs(score) == math.huge then return v[2] == '0' end
      local shown = parse_decimal(repr(score))
      local digits, shown_digits = string.match(v[2], '^(.-)0*$'), string.match(shown[2], '^(.-)0*$')
      return v[1] == shown[1] and digits == shown_digits and v[3] + #v[2] == shown[3] + #shown[2]
    end,
  }
end
