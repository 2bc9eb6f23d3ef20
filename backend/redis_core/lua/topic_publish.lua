-- Publish one update: position, history and message in one step.
-- KEYS  meta; body (stream of history, or the text, or the members); bus sequence; idempotency key, if there is an id
-- ARGV  1 kind; 2 epoch if there is none yet; 3 channel; 4 what the message begins with; 5 type; 6 id or -; 7 data;
--       8 entries kept; 9 milliseconds kept; 10 version that must be current, or -1; 11 document, piece of text or member's field;
--       12 member's data; or of a text e: it ends, a: it begins anew, ae: both; 13 highest bus sequence that the publisher knows
-- Reply {1, epoch, offset, bus sequence} published; {1, epoch, offset} published before under this id, or nothing to tell;
--       {0, offset} another version is current
-- Cost  HMGET HSET PEXPIRE INCR PUBLISH, and XADD PEXPIRE (events), HSET XADD PEXPIRE (state), APPEND PEXPIRE (append),
--       HSET or HDEL HKEYS (presence); GET and SET with an id; HSET more, once SET, in a workspace that lost updates
local kind, id = ARGV[1], ARGV[6]
if id ~= '-' then
  local known = redis.call('GET', KEYS[4])
  if known then
    local at = string.find(known, ' ', 1, true)
    return {1, string.sub(known, 1, at - 1), tonumber(string.sub(known, at + 1))}
  end
end
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'f', 'g')
local epoch, offset = meta[1], tonumber(meta[2] or '0')
if ARGV[10] ~= '-1' and tonumber(ARGV[10]) ~= offset then return {0, offset} end
if kind == 'presence' then
  if ARGV[5] == 'join' then
    redis.call('HSET', KEYS[2], ARGV[11], ARGV[12])
  else
    if redis.call('HDEL', KEYS[2], ARGV[11]) == 0 then return {1, epoch or ARGV[2], offset} end
    local member = string.match(ARGV[11], ' (.*)$')
    for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
      -- Another process still holds it.
      if string.match(field, ' (.*)$') == member then return {1, epoch or ARGV[2], offset} end
    end
  end
end
-- The sequence's upper part counts how often the store was found to be behind what it had told before: it came back without its last writes.
local sequence, known = redis.call('INCR', KEYS[3]), tonumber(ARGV[13])
if sequence <= known then
  sequence = (math.floor(known / 2 ^ 40) + 1) * 2 ^ 40
  redis.call('SET', KEYS[3], string.format('%.0f', sequence))
end
local losses = math.floor(sequence / 2 ^ 40)
if not epoch or meta[3] or kind == 'append' and string.sub(ARGV[12], 1, 1) == 'a' then
  -- New, forgotten by the store, or a text that had ended or begins anew: what is left of an earlier epoch must not be read as this one's.
  epoch, offset = ARGV[2], 0
  if kind ~= 'presence' then redis.call('DEL', KEYS[2]) end
  redis.call('DEL', KEYS[1])
elseif tonumber(meta[4] or '0') ~= losses then
  -- Offsets go on, but readers may have had others of the same numbers.
  epoch = ARGV[2]
end
local before, data = offset, ARGV[7]
if kind == 'append' then
  offset = redis.call('APPEND', KEYS[2], ARGV[11])
  before = offset - #ARGV[11]
  data = '{"from":' .. before .. ',"text":' .. data
  if string.sub(ARGV[12], -1) == 'e' then
    -- The end has a position of its own, or nobody could tell it from the last piece.
    offset = offset + 1
    redis.call('HSET', KEYS[1], 'f', '1')
    data = data .. ',"done":true'
  end
  data = data .. '}'
else
  offset = offset + 1
end
if kind == 'events' or kind == 'state' then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[8], offset .. '-0', 't', ARGV[5], 'i', id, 'd', data)
end
if kind == 'state' then
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', offset, 'd', ARGV[11])
else
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', offset)
end
if losses > 0 then redis.call('HSET', KEYS[1], 'g', losses) end
if ARGV[9] ~= '0' then
  -- The position outlives the history, so that what is gone shows as a gap and not as a new beginning.
  redis.call('PEXPIRE', KEYS[2], ARGV[9])
  if kind ~= 'state' then redis.call('PEXPIRE', KEYS[1], ARGV[9] * 2) end
end
if id ~= '-' then redis.call('SET', KEYS[4], epoch .. ' ' .. offset, 'PX', ARGV[9]) end
local type = ARGV[5]
if kind == 'presence' then
  -- Listeners watch over the lease of who says it.
  type, id = 'pres', string.match(ARGV[11], '^[^ ]*')
end
redis.call('PUBLISH', ARGV[3], ARGV[4] .. ' ' .. string.format('%.0f', sequence) .. ' ' .. epoch .. ' ' .. before .. ' ' .. offset .. ' ' .. type .. ' ' .. id .. ' ' .. data)
return {1, epoch, offset, sequence}
