-- Add to an integer field of a session, only if the session still exists.
-- KEYS  session
-- ARGV  1 field; 2 how much
-- Reply {1, the new value}; {0} the session is gone; {2, MAC} it goes on under this MAC
-- Cost  HMGET HINCRBY
local known = redis.call('HMGET', KEYS[1], '_s', '_p')
if known[1] then return {1, redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])} end
if known[2] then return {2, known[2]} end
return {0}
