-- A topic's position, and what came after one that a reader has, of one moment.
-- KEYS  meta; body
-- ARGV  1 kind; 2 the reader's epoch or -; 3 the reader's offset; 4 epoch if there is none yet
-- Reply {epoch or '', offset, document, ended, body}: the entries after the offset, the text, or the members
-- Cost  HMGET, and XRANGE, GET or HGETALL; HSET DEL PEXPIRE more for a topic that is not there yet
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'd', 'f')
local body
if not meta[1] then
  -- A reader needs an epoch, or the first update would look like another topic's.
  meta[1], meta[2] = ARGV[4], '0'
  redis.call('HSET', KEYS[1], 'e', ARGV[4], 'o', 0)
  if ARGV[1] ~= 'presence' then redis.call('DEL', KEYS[2]) end
  if ARGV[1] ~= 'state' then redis.call('PEXPIRE', KEYS[1], 172800000) end
end
if ARGV[1] == 'append' then
  body = redis.call('GET', KEYS[2])
elseif ARGV[1] == 'presence' then
  body = redis.call('HGETALL', KEYS[2])
elseif ARGV[2] == '-' then
  body = {}
elseif ARGV[2] == meta[1] then
  body = redis.call('XRANGE', KEYS[2], '(' .. ARGV[3] .. '-0', '+')
else
  body = redis.call('XRANGE', KEYS[2], '-', '+')
end
return {meta[1] or '', tonumber(meta[2] or '0'), meta[3] or '', meta[4] or '', body or ''}
