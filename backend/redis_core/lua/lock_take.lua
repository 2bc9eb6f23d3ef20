-- Take a lock, or stand in line for it. Doing it twice under one id is doing it once.
--
-- KEYS  1 the lock   2 the fencing counter   3 who waits, by arrival   4 who waits, by when they are taken for dead
-- ARGV  1 the caller's id, <process>.<n>   2 ms to live   3 ms after which a waiter is taken for dead, 0 not to wait
--       4 the least epoch of a token, in microseconds   5 the prefix of the channels by which processes are woken
-- Reply {1, token} it is the caller's; {0, ms} it is not, and ends after these ms unless it is renewed
-- Cost  GET ZRANGE HMGET HSET SET; held: GET, and to wait TIME ZRANGEBYSCORE ZADD ZADD PEXPIRE PEXPIRE PTTL, once APPEND
local id, least = ARGV[1], tonumber(ARGV[4])

local function time()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Tokens only grow: a counter that was lost begins anew in an epoch that is the time, in microseconds.
local function mint()
  local known = redis.call('HMGET', KEYS[2], 'e', 'n')
  local epoch, count = tonumber(known[1] or ''), tonumber(known[2] or '')
  if not epoch or not count then
    epoch, count = math.max(least, time()), 0
  elseif least > epoch then
    epoch, count = least, 0
  end
  local token = whole(epoch) .. '.' .. whole(count + 1)
  redis.call('HSET', KEYS[2], 'e', whole(epoch), 'n', whole(count + 1))
  redis.call('SET', KEYS[1], id .. ' ' .. token, 'PX', ARGV[2])
  return {1, token}
end

local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #id + 1) == id .. ' ' then
  local epoch, count = string.match(held, ' (%d+)%.(%d+)')
  if tonumber(epoch) < least then
    return mint()
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, epoch .. '.' .. count}
end

local now
if not held then
  local first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if first and first ~= id then
    now = time()
    for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(math.floor(now / 1000)))) do
      redis.call('ZREM', KEYS[3], dead)
      redis.call('ZREM', KEYS[4], dead)
    end
    first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  end
  if not first or first == id then
    if first then
      redis.call('ZREM', KEYS[3], id)
      redis.call('ZREM', KEYS[4], id)
      local reply = mint()
      if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('APPEND', KEYS[1], 'w') end
      return reply
    end
    return mint()
  end
  -- Another's turn. It was told; once more, because a message may be lost.
  redis.call('PUBLISH', ARGV[5] .. string.match(first, '^[^.]*'), first)
end

if ARGV[3] == '0' then
  return {0, held and math.max(0, redis.call('PTTL', KEYS[1])) or 0}
end
now = now or time()
redis.call('ZADD', KEYS[3], 'NX', whole(now), id)
redis.call('ZADD', KEYS[4], whole(math.floor(now / 1000) + tonumber(ARGV[3])), id)
redis.call('PEXPIRE', KEYS[3], 10 * tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[4], 10 * tonumber(ARGV[3]))
if held and string.sub(held, -1) ~= 'w' then
  -- Who releases it sees that somebody is to be told.
  redis.call('APPEND', KEYS[1], 'w')
end
return {0, held and math.max(0, redis.call('PTTL', KEYS[1])) or 0}
