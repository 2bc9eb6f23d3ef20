-- Keep, give back or wait for the lease of a load.
--
-- KEYS  1 the lease
-- ARGV  1 'renew', 'release' or 'wait'   2 the holder's token ('' to wait)   3 milliseconds to live, to renew
-- Reply 1 done (there is a lease to wait for)   0 the lease is not ours (there is none)
-- Cost  GET, and PEXPIRE, DEL or APPEND
local held = redis.call('GET', KEYS[1])
if not held then
  return 0
end
if ARGV[1] == 'wait' then
  -- One mark after the token is enough, whoever waits: the filler wakes all.
  if string.sub(held, -1) ~= 'w' then
    redis.call('APPEND', KEYS[1], 'w')
  end
  return 1
end
if string.sub(held, 1, #ARGV[2]) ~= ARGV[2] then
  return 0
end
if ARGV[1] == 'renew' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
return 1
