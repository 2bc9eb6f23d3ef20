-- Keep, give back, wait for or take away the lease of a load.
--
-- A token begins with `g` and the mark of the generations it loads under: what is loaded under others than the present ones is a miss.
-- A lease that is `d` is done: its value was stored a moment ago. Who finds one or the other is to look again, and if that
-- tells nothing new, to take it away.
--
-- KEYS  1 the lease
-- ARGV  1 'renew', 'release', 'wait' or 'oust'   2 the holder's token; to wait or oust how one's own would begin   3 milliseconds to live, to renew
-- Reply renew, release: 0 the lease is not ours   1 done   2 given back, and others wait to be told
--       wait: 0 there is no lease   -1 it is done or of other generations   else the milliseconds after which it ends unless it is renewed
--       oust: 0 there is none, or it is of the same generations   1 done
-- Cost  GET, and PEXPIRE, DEL or PTTL; the first to wait APPEND as well
local held = redis.call('GET', KEYS[1])
if not held then
  return 0
end
local ours = string.sub(held, 1, #ARGV[2]) == ARGV[2]
local useless = not ours and (held == 'd' or string.sub(held, 1, 1) == 'g')
if ARGV[1] == 'oust' then
  return useless and redis.call('DEL', KEYS[1]) or 0
end
if ARGV[1] == 'wait' then
  if useless then
    return -1
  end
  -- One mark after the token is enough, whoever waits: the holder tells all.
  if string.sub(held, -1) ~= 'w' then
    redis.call('APPEND', KEYS[1], 'w')
  end
  return math.max(1, redis.call('PTTL', KEYS[1]))
end
if not ours then
  return 0
end
if ARGV[1] == 'renew' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
redis.call('DEL', KEYS[1])
return #held > #ARGV[2] and 2 or 1
