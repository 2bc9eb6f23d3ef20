-- What a running job writes to its own hash; refused once its worker has lost it.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 worker   3 field   4 run   5 what to publish to who follows the job, or ''   6 how many fields to set;
--       field, value for each; then field, amount for each to add to
-- Reply 1 done   0 the job is not this worker's any more, nothing was written
-- Cost  HGET, HSET if it sets, HINCRBYFLOAT for each amount, PUBLISH
local field = ARGV[3]
local value = call('HGET', run_key(ARGV[2]), field)
if not value or match(value, '^%d+') ~= ARGV[4] then return 0 end
local sets = tonumber(ARGV[6])
if sets > 0 then call('HSET', job_key(field), unpack(ARGV, 7, 6 + sets * 2)) end
for at = 7 + sets * 2, #ARGV, 2 do call('HINCRBYFLOAT', job_key(field), ARGV[at], ARGV[at + 1]) end
if ARGV[5] ~= '' then call('PUBLISH', 'job-events:' .. TAG .. ':' .. field, ARGV[5]) end
return 1
