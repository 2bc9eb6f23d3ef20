-- Read a session on the store's leader: a script is never answered by a replica.
-- KEYS  session
-- ARGV  none
-- Reply its fields and values
-- Cost  HGETALL
return redis.call('HGETALL', KEYS[1])
