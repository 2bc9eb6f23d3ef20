-- A topic's position, and what came after one that a reader has, of one moment.
-- KEYS  meta; body; bus sequence
-- ARGV  1 kind; 2 the reader's epoch or -; 3 the reader's offset; 4 epoch if there is none yet; 5 0, or the store has lost updates of this epoch: the highest bus sequence that is known
-- Reply {epoch or '', offset, document, ended, body}: the entries after the offset, the text from there, or the members
-- Cost  HMGET, and XRANGE, GETRANGE or HGETALL; GET HSET DEL PEXPIRE more for a topic that is not there yet, GET SET HSET for one that lost updates
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'd', 'f')
local body
if not meta[1] then
  -- A reader needs an epoch, or the first update would look like another topic's.
  meta[1], meta[2] = ARGV[4], '0'
  local losses = math.floor(tonumber(redis.call('GET', KEYS[3]) or '0') / 2 ^ 40)
  redis.call('HSET', KEYS[1], 'e', ARGV[4], 'o', 0, 'g', losses)
  if ARGV[1] ~= 'presence' then redis.call('DEL', KEYS[2]) end
  if ARGV[1] ~= 'state' then redis.call('PEXPIRE', KEYS[1], 172800000) end
elseif ARGV[5] ~= '0' and ARGV[2] == meta[1] then
  local sequence, known = tonumber(redis.call('GET', KEYS[3]) or '0'), tonumber(ARGV[5])
  if sequence < known then
    -- As in topic_publish: the other topics of the workspace learn it with their next update.
    sequence = (math.floor(known / 2 ^ 40) + 1) * 2 ^ 40
    redis.call('SET', KEYS[3], string.format('%.0f', sequence))
  end
  meta[1] = ARGV[4]
  redis.call('HSET', KEYS[1], 'e', ARGV[4], 'g', math.floor(sequence / 2 ^ 40))
end
local same = ARGV[2] == meta[1]
if ARGV[1] == 'append' then
  local covered = same and tonumber(ARGV[3]) <= tonumber(meta[2] or '0')
  body = redis.call('GETRANGE', KEYS[2], covered and ARGV[3] or '0', '-1')
elseif ARGV[1] == 'presence' then
  body = redis.call('HGETALL', KEYS[2])
elseif ARGV[2] == '-' then
  body = {}
elseif same then
  body = redis.call('XRANGE', KEYS[2], '(' .. ARGV[3] .. '-0', '+')
else
  body = redis.call('XRANGE', KEYS[2], '-', '+')
end
return {meta[1] or '', tonumber(meta[2] or '0'), meta[3] or '', meta[4] or '', body or ''}
