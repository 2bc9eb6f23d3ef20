-- Cancel a job: at once if it does not run, else its worker is told.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms or 0   2 field   3 its result, as text   4 ms that is kept
-- Reply 0 there is no such job, or it is over   1 it will not run   2 it runs, and has been asked to end
-- Cost  HGET HGET ZREM HDEL; then SET PEXPIRE and about 6 more; for each worker ZRANGE HGET, HSET PUBLISH if it runs
local field = ARGV[2]
local payload = call('HGET', JOBS, field)
if not payload or payload == '' then return 0 end
for _, worker in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  local value = call('HGET', run_key(worker), field)
  if value then
    call('HSET', run_key(worker), field, (string.gsub(value, '^(%d+,%d+,%d+),%d', '%1,1')))
    call('PUBLISH', named('control'), field)
    return 2
  end
end
local ws = split(field)
local _, task, unique = header(payload)
local placed = call('ZREM', LATER, field) + unblock(field)
call('SET', result_key(field), ARGV[3], 'PX', ARGV[4])
call('PEXPIRE', job_key(field), ARGV[4])
over({field}, {false}, {unique}, ARGV[4])
-- Its name still waits in a list: an empty payload keeps it from running, and from being taken in anew, until it comes up.
-- It counts among the unfinished until then, or names without number could be left behind.
if placed == 0 then
  call('HSET', JOBS, field, '')
  count(DEPTH, ws, 1)
end
write_counts()
return 1
