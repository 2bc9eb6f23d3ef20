-- Carry out changes that were made to a session while the store was away. Doing it twice is doing it once.
-- KEYS  session; user's index, if it has one
-- ARGV  1 time of use in milliseconds, 0 for none; 2 TTL; 3 end of the session; 4 MAC;
--       then for each field its name, '1' and what it held before or '0' and nothing, '1' and what it holds now or '0' and nothing
-- Reply {1, n} done, but n fields that somebody else has changed meanwhile were left; {0} the session is gone;
--       {2, MAC} it goes on under this MAC, nothing was done
-- Cost  HMGET; HSET and HDEL for fields that change; HSET PEXPIRE ZADD if use is written
local known = redis.call('HMGET', KEYS[1], '_s', '_t', '_p')
if not known[1] then
  if known[3] then return {2, known[3]} end
  return {0}
end
local left = 0
for at = 5, #ARGV, 5 do
  local name = ARGV[at]
  local before, after = ARGV[at + 1] == '1' and ARGV[at + 2], ARGV[at + 3] == '1' and ARGV[at + 4]
  local present = redis.call('HGET', KEYS[1], name)
  if present == before and before ~= after then
    if after then redis.call('HSET', KEYS[1], name, after) else redis.call('HDEL', KEYS[1], name) end
  elseif present ~= after then
    left = left + 1
  end
end
if tonumber(known[2]) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], '_t', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if KEYS[2] then redis.call('ZADD', KEYS[2], 'XX', ARGV[3], ARGV[4]) end
end
return {1, left}
