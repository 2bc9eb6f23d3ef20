-- Store a session that the store does not have: begun while it was away, or lost with its data. Once, and never after it was ended.
-- KEYS  session; the mark that it was restored or ended; user's index, if it has one
-- ARGV  1 MAC; 2 end of the session; 3 its TTL in Redis; 4 TTL of the index; then field, value, field, value. Times in milliseconds
-- Reply 1 stored; 0 it was there, or has been restored or ended before
-- Cost  SET EXISTS HSET PEXPIRE; with an index ZADD PTTL, PEXPIRE if it must live longer
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[3]) then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if KEYS[3] then
  redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
  if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
end
return 1
