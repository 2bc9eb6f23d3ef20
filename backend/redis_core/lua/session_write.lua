-- Write changed fields of a session, and that it was used, only if it still exists.
-- KEYS  session; user's index, if it has one
-- ARGV  1 time of use in milliseconds, empty for none; 2 use already written after this time needs no writing; 3 TTL;
--       4 end of the session; 5 MAC; 6 number of fields written; field, value, ...; then the names of fields removed
-- Reply {1} done; {0} the session is gone; {2, MAC} it goes on under this MAC. Nothing was done for 0 and 2
-- Cost  HMGET; HSET if fields are written; HDEL if fields are removed; HSET PEXPIRE ZADD if use is written
local known = redis.call('HMGET', KEYS[1], '_s', '_t', '_p')
if not known[1] then
  if known[3] then return {2, known[3]} end
  return {0}
end
local last = 6 + 2 * tonumber(ARGV[6])
if last > 6 then redis.call('HSET', KEYS[1], unpack(ARGV, 7, last)) end
if #ARGV > last then redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1)) end
if ARGV[1] ~= '' and tonumber(known[2]) <= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], '_t', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  if KEYS[2] then redis.call('ZADD', KEYS[2], 'XX', ARGV[4], ARGV[5]) end
end
return {1}
