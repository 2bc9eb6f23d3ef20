-- Store a loaded value, if the lease it was loaded under still stands.
--
-- A deletion takes the lease away, so a value read before it can never be stored after it. What is left in the lease's place for a moment
-- tells who looked before the value was there, and asks for the lease only now, to look again.
--
-- KEYS  1 the lease   2 the value, in the same slot
-- ARGV  1 the lease's token   2 the envelope   3 milliseconds to live   4 milliseconds that the lease tells that it is done
-- Reply 0 refused   1 stored   2 stored, and others wait to be told
-- Cost  GET, SET, SET; refused GET
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[1], 'd', 'PX', ARGV[4])
return #held > #ARGV[1] and 2 or 1
