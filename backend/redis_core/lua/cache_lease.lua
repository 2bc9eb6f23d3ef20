-- Keep, give back or wait for the lease of a load.
--
-- KEYS  1 the lease
-- ARGV  1 'renew', 'release' or 'wait'   2 the holder's token ('' to wait)   3 milliseconds to live, to renew
-- Reply renew, release: 0 the lease is not ours   1 done   2 given back, and others wait to be told
--       wait: 0 there is no lease   else the milliseconds after which it ends unless it is renewed
-- Cost  GET, and PEXPIRE, DEL or PTTL; the first to wait APPEND as well
local held = redis.call('GET', KEYS[1])
if not held then
  return 0
end
if ARGV[1] == 'wait' then
  -- One mark after the token is enough, whoever waits: the holder tells all.
  if string.sub(held, -1) ~= 'w' then
    redis.call('APPEND', KEYS[1], 'w')
  end
  return math.max(1, redis.call('PTTL', KEYS[1]))
end
if string.sub(held, 1, #ARGV[2]) ~= ARGV[2] then
  return 0
end
if ARGV[1] == 'renew' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
redis.call('DEL', KEYS[1])
return #held > #ARGV[2] and 2 or 1
