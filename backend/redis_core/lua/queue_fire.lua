-- Note that a schedule has fired, if nobody of the fleet has noted this firing or a later one.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 schedule   3 the firing's time in ms, '' only to look   4 the time to begin at, if it is new
-- Reply the time of the last firing before this call
-- Cost  HGET, HSET if it is newer
local fired = named('schedules')
local last = call('HGET', fired, ARGV[2])
if not last then
  last = ARGV[4]
  call('HSET', fired, ARGV[2], last)
end
if ARGV[3] ~= '' and tonumber(ARGV[3]) > tonumber(last) then call('HSET', fired, ARGV[2], ARGV[3]) end
return last
