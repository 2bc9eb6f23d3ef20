-- Write a field of a session if it still holds what is expected.
-- KEYS  session
-- ARGV  1 field; 2 1 if it is expected to be there; 3 its expected bytes; 4 1 to write, 0 to remove; 5 the bytes to write
-- Reply {1} done; {3, its bytes} or {3} if absent: it holds something else; {0} the session is gone; {2, MAC} it goes on
--       under this MAC
-- Cost  HMGET; HSET or HDEL if it matches
local known = redis.call('HMGET', KEYS[1], '_s', '_p', ARGV[1])
if not known[1] then
  if known[2] then return {2, known[2]} end
  return {0}
end
local present = known[3]
if ARGV[2] == '1' then
  if present ~= ARGV[3] then return {3, present or nil} end
elseif present then
  return {3, present}
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[5])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return {1}
