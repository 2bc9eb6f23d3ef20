-- Begin a new epoch: every session of an older one is dead. Epochs only grow, whatever the clocks say.
-- KEYS  the epoch of a user or workspace
-- ARGV  1 the least value, the time in milliseconds; 2 TTL in milliseconds; 3 '1' for a later one than the present, '0' for at least
--       this one, which may be said again
-- Reply the epoch
-- Cost  GET SET
local epoch = math.max((tonumber(redis.call('GET', KEYS[1]) or '0')) + tonumber(ARGV[3]), tonumber(ARGV[1]))
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], text, 'PX', ARGV[2])
return text
