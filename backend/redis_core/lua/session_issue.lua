-- Store a session under a new token: a login, or in place of an old one (rotation).
-- KEYS  new session; user's index if ARGV[1] is 1; old session if ARGV[2] is 1; sessions to end, any number
-- ARGV  1 has an index; 2 has an old session; 3 new MAC; 4 old MAC; 5 now; 6 end of the session; 7 its TTL in Redis;
--       8 most sessions in the index, 0 without limit; 9 TTL of the index; 10 TTL of a pointer from old to new, 0 for none;
--       11 how many MACs to end; these MACs; then field, value, field, value. Times in milliseconds.
-- Reply {1} done; {0} the old session is gone, nothing was done; {2} the index is full, nothing was done
-- Cost  HSET PEXPIRE; with an index ZREMRANGEBYSCORE ZADD PTTL, PEXPIRE if it must live longer, ZCARD if limited; with an old
--       session HEXISTS RENAME ZREM ZSCORE; for those to end UNLINK ZREM
local place = 1
local index, old
if ARGV[1] == '1' then place = place + 1; index = KEYS[place] end
if ARGV[2] == '1' then place = place + 1; old = KEYS[place] end
local limit, ending = tonumber(ARGV[8]), tonumber(ARGV[11])

if old and redis.call('HEXISTS', old, '_s') == 0 then return {0} end
if index then
  redis.call('ZREMRANGEBYSCORE', index, '-inf', ARGV[5])
  if limit > 0 then
    local count = redis.call('ZCARD', index)
    for i = 1, ending do
      if redis.call('ZSCORE', index, ARGV[11 + i]) then count = count - 1 end
    end
    if old and redis.call('ZSCORE', index, ARGV[4]) then count = count - 1 end
    if count >= limit then return {2} end
  end
end
for i = 1, ending do
  redis.call('UNLINK', KEYS[place + i])
  redis.call('ZREM', index, ARGV[11 + i])
end
if old then
  redis.call('RENAME', old, KEYS[1])
  if index then redis.call('ZREM', index, ARGV[4]) end
  if ARGV[10] ~= '0' then
    redis.call('HSET', old, '_p', ARGV[3])
    redis.call('PEXPIRE', old, ARGV[10])
  end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 12 + ending))
redis.call('PEXPIRE', KEYS[1], ARGV[7])
if index then
  redis.call('ZADD', index, ARGV[6], ARGV[3])
  if redis.call('PTTL', index) < tonumber(ARGV[9]) then redis.call('PEXPIRE', index, ARGV[9]) end
end
return {1}
