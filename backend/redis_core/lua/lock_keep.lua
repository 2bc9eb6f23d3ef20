-- Renew a lock, or leave it: give it back if it is ours, and stand in line for it no more.
--
-- KEYS  1 the lock   2 who waits, by arrival   3 who waits, by when they are taken for dead
-- ARGV  1 'renew' or 'leave'   2 the caller's id   3 ms to live, to renew   4 the prefix of the channels of `lock_take`
-- Reply 1 done; 0 the lock is not the caller's
-- Cost  renew: GET PEXPIRE; leave: GET DEL, and where somebody waits ZREM ZREM ZRANGE PUBLISH
local held = redis.call('GET', KEYS[1])
local ours = held and string.sub(held, 1, #ARGV[2] + 1) == ARGV[2] .. ' '
if ARGV[1] == 'renew' then
  if not ours then
    return 0
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
if ours then
  redis.call('DEL', KEYS[1])
  if string.sub(held, -1) ~= 'w' then
    return 1
  end
else
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
if ours or not held then
  local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if first then
    redis.call('PUBLISH', ARGV[4] .. string.match(first, '^[^.]*'), first)
  end
end
return ours and 1 or 0
